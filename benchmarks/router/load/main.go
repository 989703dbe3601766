// Command load is both ends of the router's benchmark: a backend that answers at once or streams, a load
// generator, and a replayer of a trace of conversations. Each prints one JSON object at its end.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"time"
)

func main() {
	commands := map[string]func([]string) (any, error){"backend": backend, "send": send, "replay": replay}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: load backend|send|replay [flags]")
		os.Exit(2)
	}
	result, err := commands[os.Args[1]](os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(result)
}

// latencies of requests; quantiles are of all of them.
type latencies []time.Duration

func (all latencies) milliseconds(share float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	return float64(all[min(len(all)-1, int(share*float64(len(all))))].Microseconds()) / 1000
}
