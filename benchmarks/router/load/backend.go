package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n"

// backend stands for engines that need no time: it reads a request and answers, or streams as many tokens as
// the header X-Tokens says, each after X-Interval-Ms.
func backend(arguments []string) (any, error) {
	flags := flag.NewFlagSet("backend", flag.ExitOnError)
	addresses := flags.String("listen", "127.0.0.1:9000", "addresses, separated by commas")
	_ = flags.Parse(arguments)
	failed := make(chan error)
	for _, address := range strings.Split(*addresses, ",") {
		server := &http.Server{Addr: address, Handler: http.HandlerFunc(answer)}
		go func() { failed <- server.ListenAndServe() }()
	}
	return nil, <-failed
}

func answer(writer http.ResponseWriter, request *http.Request) {
	_, _ = io.Copy(io.Discard, request.Body)
	tokens, _ := strconv.Atoi(request.Header.Get("X-Tokens"))
	if tokens == 0 {
		writer.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(writer, `{"choices":[]}`)
		return
	}
	interval, _ := strconv.Atoi(request.Header.Get("X-Interval-Ms"))
	writer.Header().Set("Content-Type", "text/event-stream")
	ticks := time.NewTicker(time.Duration(interval) * time.Millisecond)
	defer ticks.Stop()
	for range tokens {
		if _, err := io.WriteString(writer, chunk); err != nil {
			return
		}
		writer.(http.Flusher).Flush()
		<-ticks.C
	}
	_, _ = fmt.Fprint(writer, "data: [DONE]\n\n")
}
