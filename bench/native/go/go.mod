module neighbours

go 1.24
