package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"
)

const longestLine = 16 << 20

type turn struct {
	DueSeconds float64         `json:"due_seconds"`
	Session    string          `json:"session"`
	Body       json.RawMessage `json:"body"`
}

type replayed struct {
	sent
	Replicas map[string]int `json:"replicas"`
}

// replay sends each request of a file when it is due. What is timed is the first token.
func replay(arguments []string) (any, error) {
	flags := flag.NewFlagSet("replay", flag.ExitOnError)
	url := flags.String("url", "", "where to")
	file := flags.String("turns", "", "JSON lines with due_seconds, session and body")
	headers := flags.Bool("headers", false, "send X-Session-Id")
	_ = flags.Parse(arguments)
	turns, err := readTurns(*file)
	if err != nil {
		return nil, err
	}
	all, replicas, began := &tally{}, map[string]int{}, time.Now()
	sender := client(1000)
	var running sync.WaitGroup
	for _, each := range turns {
		time.Sleep(time.Until(began.Add(time.Duration(each.DueSeconds * float64(time.Second)))))
		running.Add(1)
		go func() {
			defer running.Done()
			replica, err := each.ask(sender, *url, *headers, all)
			if err != nil {
				all.add(0, err)
			}
			all.lock.Lock()
			replicas[replica]++
			all.lock.Unlock()
		}()
	}
	running.Wait()
	return replayed{sent: all.result(time.Since(began)), Replicas: replicas}, nil
}

func readTurns(path string) ([]turn, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, longestLine)
	var turns []turn
	for lines.Scan() {
		var each turn
		if err := json.Unmarshal(lines.Bytes(), &each); err != nil {
			return nil, err
		}
		turns = append(turns, each)
	}
	return turns, lines.Err()
}

func (each turn) ask(sender *http.Client, url string, headers bool, all *tally) (string, error) {
	request, err := http.NewRequest(http.MethodPost, url+"/v1/chat/completions", bytes.NewReader(each.Body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	if headers {
		request.Header.Set("X-Session-Id", each.Session)
	}
	began := time.Now()
	response, err := sender.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	replica := response.Header.Get("X-Flotilla-Replica")
	if response.StatusCode != http.StatusOK {
		return replica, fmt.Errorf("status %d", response.StatusCode)
	}
	first, whole, err := readStream(response.Body, 1)
	if err == nil && !whole {
		err = fmt.Errorf("a stream broke")
	}
	all.add(first.Sub(began), err)
	return replica, nil
}
