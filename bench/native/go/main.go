// Peers measures one cache of one size: peers SUBJECT ENTRIES ROWS SEED. One JSON object a line.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"
)

const (
	chunkRows   = 4096 // keys made at a time, outside of what is timed
	stallWrites = 16   // writes between two looks at the clock, which costs as much as a write
)

// subject is a cache that is measured.
type subject interface {
	get(Key) (Value, bool)
	put(Key, Value)
	holds(Key) bool // changes nothing
}

// total is time and result of a loop over many keys.
type total struct {
	Operation    string        `json:"operation"`
	Entries      uint64        `json:"entries"`
	Rows         uint64        `json:"rows"`
	CPUNS        time.Duration `json:"cpu_ns"`
	WallNS       time.Duration `json:"wall_ns"`
	ProcessCPUNS time.Duration `json:"process_cpu_ns"` // of all threads, those of the collector included
	Found        uint64        `json:"found"`          // of a read, hits; of a write, how many of the latest are there
	Sum          uint64        `json:"sum"`
	LongestGapNS time.Duration `json:"longest_gap_ns"`
	collector
}

func main() {
	if len(os.Args) != 5 {
		fail("usage: peers SUBJECT ENTRIES ROWS SEED")
	}
	runtime.LockOSThread()
	entries, rows, seed := number(os.Args[2]), number(os.Args[3]), number(os.Args[4])
	work := newWorkload(entries, seed)
	switch os.Args[1] {
	case "map-list":
		measure(newMapList(int(entries)), work, rows)
	default:
		fail("no subject " + os.Args[1])
	}
}

func fail(reason string) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(2)
}

func number(text string) uint64 {
	value, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		fail(err.Error())
	}
	return value
}

// measure is generic over the cache, so that its calls are as direct as a program's own.
func measure[cache subject](lru cache, work workload, rows uint64) {
	entries := work.entries
	write(lru, entries, work.key, chunkRows)
	touch(lru, work)
	report("hit", entries, rows, read(lru, rows, work.draw))
	other := func(row uint64) Key { return work.key(entries + row) }
	collected := make(chan struct{})
	go func() { // left alone, the collector might start just before and just after
		runtime.GC()
		close(collected)
	}()
	report("turnover", entries, entries, write(lru, entries, other, stallWrites))
	<-collected
	written := func(row uint64) Key { return work.key(2*entries + row) }
	result := write(lru, rows, written, chunkRows)
	for row := rows - min(rows, entries); row < rows; row++ {
		if lru.holds(written(row)) {
			result.Found++
		}
	}
	report("write", entries, rows, result)
	report("collection", entries, entries, collection())
	runtime.KeepAlive(lru)
}

// touch reads all entries in random order, so that recency has nothing to do with the order in memory.
func touch[cache subject](lru cache, work workload) {
	order := work.shuffled()
	read(lru, work.entries, func(row uint64) Key { return work.key(uint64(order[row])) })
}

func read[cache subject](lru cache, rows uint64, key func(uint64) Key) total {
	return timed(rows, key, func(chunk []Key, sums *total) {
		for _, key := range chunk {
			if value, found := lru.get(key); found {
				sums.Found++
				sums.Sum += uint64(value.MentionCount)
			}
		}
	})
}

// write looks at the clock every fewRows writes for the longest gap.
func write[cache subject](lru cache, rows uint64, key func(uint64) Key, fewRows int) total {
	return timed(rows, key, func(chunk []Key, sums *total) {
		before := time.Now()
		for start := 0; start < len(chunk); start += fewRows {
			for _, key := range chunk[start:min(start+fewRows, len(chunk))] {
				lru.put(key, valueOf(key))
			}
			now := time.Now()
			sums.LongestGapNS = max(sums.LongestGapNS, now.Sub(before))
			before = now
		}
	})
}

// timed is the loop over chunks of all keys; the clocks stand still while a chunk is made.
func timed(rows uint64, key func(uint64) Key, each func([]Key, *total)) (sums total) {
	watch := watchCollector()
	chunk := make([]Key, 0, chunkRows)
	for start := uint64(0); start < rows; start += chunkRows {
		chunk = chunk[:0]
		for row := start; row < min(start+chunkRows, rows); row++ {
			chunk = append(chunk, key(row))
		}
		process, wall, cpu := processCPU(), time.Now(), threadCPU()
		each(chunk, &sums)
		sums.CPUNS += threadCPU() - cpu
		sums.WallNS += time.Since(wall)
		sums.ProcessCPUNS += processCPU() - process
	}
	sums.collector = watch.done()
	return sums
}

// collection is one full collection that the program waits for.
func collection() (sums total) {
	watch, cpu, process, wall := watchCollector(), threadCPU(), processCPU(), time.Now()
	runtime.GC()
	sums.WallNS, sums.CPUNS, sums.ProcessCPUNS = time.Since(wall), threadCPU()-cpu, processCPU()-process
	sums.collector = watch.done()
	return sums
}

func report(operation string, entries, rows uint64, sums total) {
	sums.Operation, sums.Entries, sums.Rows = operation, entries, rows
	if err := json.NewEncoder(os.Stdout).Encode(sums); err != nil {
		fail(err.Error())
	}
}
