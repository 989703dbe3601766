package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

type sent struct {
	Requests          int     `json:"requests"`
	Failed            int     `json:"failed"`
	RequestsPerSecond float64 `json:"requests_per_second"`
	P50               float64 `json:"p50_ms"`
	P95               float64 `json:"p95_ms"`
	P99               float64 `json:"p99_ms"`
}

type tally struct {
	lock   sync.Mutex
	times  latencies
	failed int
}

func (all *tally) add(took time.Duration, err error) {
	all.lock.Lock()
	defer all.lock.Unlock()
	if err != nil {
		all.failed++
		return
	}
	all.times = append(all.times, took)
}

func (all *tally) result(wall time.Duration) sent {
	count := len(all.times)
	return sent{
		Requests: count, Failed: all.failed, RequestsPerSecond: float64(count) / wall.Seconds(),
		P50: all.times.milliseconds(0.5), P95: all.times.milliseconds(0.95), P99: all.times.milliseconds(0.99),
	}
}

func client(connections int) *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConns: connections, MaxIdleConnsPerHost: connections, DisableCompression: true,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}}
}

// send asks with bodies of one size: at a rate, counted from when each request was due, or as fast as a
// number of connections can. With -tokens each connection reads one stream, and what is timed is its first
// token; a stream without its [DONE] has failed.
func send(arguments []string) (any, error) {
	flags := flag.NewFlagSet("send", flag.ExitOnError)
	urls := flags.String("urls", "", "where to, separated by commas, in turn")
	rate := flags.Float64("rate", 0, "requests a second; 0 is as fast as the connections can")
	seconds := flags.Float64("seconds", 5, "for how long")
	connections := flags.Int("connections", 64, "at once")
	size := flags.Int("body", 4096, "bytes")
	tokens := flags.Int("tokens", 0, "of each stream")
	interval := flags.Int("interval", 20, "milliseconds between tokens")
	over := flags.Float64("over", 0, "seconds over which the connections are opened, evenly")
	_ = flags.Parse(arguments)
	job := &job{
		client: client(*connections), urls: strings.Split(*urls, ","), size: *size,
		tokens: *tokens, interval: *interval,
	}
	all, began := &tally{}, time.Now()
	var running sync.WaitGroup
	do := func(number int, due time.Time) {
		err := job.ask(number, due, all)
		if err != nil {
			all.add(0, err)
		}
	}
	until := began.Add(time.Duration(*seconds * float64(time.Second)))
	if *rate > 0 {
		for number := 0; ; number++ {
			due := began.Add(time.Duration(float64(number) / *rate * float64(time.Second)))
			if due.After(until) {
				break
			}
			time.Sleep(time.Until(due))
			running.Add(1)
			go func() { defer running.Done(); do(number, due) }()
		}
	} else {
		for worker := range *connections {
			running.Add(1)
			opened := began.Add(time.Duration(*over * float64(time.Second) * float64(worker) / float64(*connections)))
			go func() {
				defer running.Done()
				time.Sleep(time.Until(opened))
				for number := worker; ; number += *connections {
					do(number, time.Now())
					if *tokens > 0 || time.Now().After(until) {
						return
					}
				}
			}()
		}
	}
	running.Wait()
	return all.result(time.Since(began)), nil
}

type job struct {
	client           *http.Client
	urls             []string
	size             int
	tokens, interval int
}

func (job *job) ask(number int, due time.Time, all *tally) error {
	start := fmt.Sprintf(`{"model":"m","messages":[{"role":"system","content":"be kind"},`+
		`{"role":"user","content":"conversation %d"},{"role":"assistant","content":"`, number%1000)
	body := start + strings.Repeat("x", max(0, job.size-len(start)-4)) + `"}]}`
	url := job.urls[number%len(job.urls)] + "/v1/chat/completions"
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewBufferString(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if job.tokens > 0 {
		request.Header.Set("X-Tokens", fmt.Sprint(job.tokens))
		request.Header.Set("X-Interval-Ms", fmt.Sprint(job.interval))
	}
	response, err := job.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	if job.tokens == 0 {
		_, err = io.Copy(io.Discard, response.Body)
		all.add(time.Since(due), err)
		return nil
	}
	first, whole, err := readStream(response.Body, job.tokens)
	if err == nil && !whole {
		err = fmt.Errorf("a stream broke")
	}
	all.add(first.Sub(due), err)
	return nil
}

// isToken tells an event with text from one that only names the role, with which an engine may open a stream.
func isToken(line string) bool {
	return strings.Contains(line, `"content":"`) && !strings.Contains(line, `"content":""`)
}

// readStream reads server-sent events to their end: when the first token came, and whether all did.
func readStream(body io.Reader, tokens int) (time.Time, bool, error) {
	var first time.Time
	seen, done := 0, false
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, "data: ") {
			continue
		}
		if line == "data: [DONE]" {
			done = true
		} else if isToken(line) {
			if seen == 0 {
				first = time.Now()
			}
			seen++
		}
	}
	return first, done && seen >= tokens, lines.Err()
}
