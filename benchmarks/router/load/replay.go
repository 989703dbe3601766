package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	blockTokens        = 512
	charactersPerToken = 4
)

type turn struct {
	Timestamp    float64 `json:"timestamp"`
	InputLength  int     `json:"input_length"`
	OutputLength int     `json:"output_length"`
	HashIDs      []int   `json:"hash_ids"`
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type replayed struct {
	sent
	Replicas map[string]int `json:"replicas"`
}

// replay sends the first requests of a trace at its own pace, faster by a factor. The trace holds no text:
// block n of a prompt becomes a message made from its id, so equal ids give equal text. A conversation is known
// by its second block, since all share the first, the system prompt. What is timed is the first token.
func replay(arguments []string) (any, error) {
	flags := flag.NewFlagSet("replay", flag.ExitOnError)
	url := flags.String("url", "", "where to")
	file := flags.String("trace", "", "JSON lines with timestamp, output_length and hash_ids")
	count := flags.Int("requests", 2000, "how many of them")
	factor := flags.Float64("factor", 10, "how much faster than it was recorded; answers are shorter by it")
	headers := flags.Bool("headers", false, "send X-Session-Id")
	_ = flags.Parse(arguments)
	turns, err := readTurns(*file, *count)
	if err != nil {
		return nil, err
	}
	all, replicas, began := &tally{}, map[string]int{}, time.Now()
	sender := client(1000)
	var running sync.WaitGroup
	for _, each := range turns {
		due := began.Add(time.Duration(each.Timestamp / *factor * float64(time.Millisecond)))
		time.Sleep(time.Until(due))
		running.Add(1)
		go func() {
			defer running.Done()
			replica, err := each.ask(sender, *url, *factor, *headers, all)
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

func readTurns(path string, count int) ([]turn, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	var turns []turn
	for lines.Scan() && len(turns) < count {
		var each turn
		if err := json.Unmarshal(lines.Bytes(), &each); err != nil {
			return nil, err
		}
		turns = append(turns, each)
	}
	return turns, lines.Err()
}

// text fills a whole block of the engine's cache together with the role in front of it.
func text(role string, id int) string {
	role = "<|" + role + "|>"
	padded := (len(role) + charactersPerToken - 1) / charactersPerToken * charactersPerToken
	return strings.Repeat(fmt.Sprintf("%08d", id), blockTokens*charactersPerToken/8)[:blockTokens*charactersPerToken-padded]
}

func (each turn) body(factor float64) []byte {
	messages := make([]message, len(each.HashIDs))
	for place, id := range each.HashIDs {
		role := "user"
		if place == 0 {
			role = "system"
		} else if place%2 == 0 {
			role = "assistant"
		}
		messages[place] = message{Role: role, Content: text(role, id)}
	}
	encoded, _ := json.Marshal(map[string]any{
		"model": "m", "messages": messages, "stream": true, "ignore_eos": true,
		"max_tokens": max(1, int(float64(each.OutputLength)/factor)),
	})
	return encoded
}

func (each turn) ask(
	sender *http.Client, url string, factor float64, headers bool, all *tally,
) (string, error) {
	request, err := http.NewRequest(
		http.MethodPost, url+"/v1/chat/completions", bytes.NewReader(each.body(factor)))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	if headers {
		request.Header.Set("X-Session-Id", fmt.Sprint(each.HashIDs[min(1, len(each.HashIDs)-1)]))
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
