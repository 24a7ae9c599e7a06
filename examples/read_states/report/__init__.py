"""The report: one page of HTML, made of the results of a run.

figures.py   from results to numbers, and the bars with their verdicts
pictures.py  the pictures
page.py      the page
"""
