"""Counters and histograms of a cluster: a file in memory with a row for each process that counts.

Only the process of a row writes it, by plain stores. A row keeps its totals when its process ends, whatever has ended
it, and the next process that takes the row goes on adding. So a total is the sum over all rows: it never goes back, and
nothing has to be carried over when workers or masters are replaced. The master makes the file, and passes it on to the
next master; workers count in it, and the process of `[metrics]` reads it.

=============  =====================================================================================================
`layout`       what stands where in the file
`row`          the one writer of a row
`totals`       the reader: sums over all rows
`families`     the families of the exposition, made of totals
=============  =====================================================================================================
"""
