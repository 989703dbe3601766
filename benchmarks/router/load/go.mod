module flotilla.dev/benchmarks/router/load

go 1.24
