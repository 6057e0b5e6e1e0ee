// Conformance shows that a Go client gets on with a homing server. It is told where the servers are by its one argument
// and prints a line of JSON for each case, and for each rpc once it was answered; see test_conformance.py.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// Config says where the servers are, and what opens them.
type Config struct {
	Target  string `json:"target"`
	RootKey string `json:"root_key"`
	TLS     Doors  `json:"tls"`
	MTLS    Doors  `json:"mtls"`
}

// Doors are a server that speaks TLS, and the files for it.
type Doors struct {
	Target       string `json:"target"`
	CA           string `json:"ca"`
	Cert         string `json:"cert"`
	Key          string `json:"key"`
	StrangerCA   string `json:"stranger_ca"`
	StrangerCert string `json:"stranger_cert"`
	StrangerKey  string `json:"stranger_key"`
}

// Suite runs cases one after the other.
type Suite struct {
	Config
	root    *Client
	answers *bufio.Scanner
	output  sync.Mutex
	called  map[string]bool
}

func main() {
	suite := &Suite{answers: bufio.NewScanner(os.Stdin), called: map[string]bool{}}
	if err := json.Unmarshal([]byte(os.Args[1]), &suite.Config); err != nil {
		panic(err)
	}
	suite.root = suite.connect(suite.Target, withKey(suite.RootKey))

	// This one takes long, and does so by itself.
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		suite.run("keepalive", suite.keepalive)
	}()
	for _, each := range suite.cases() {
		suite.run(each.name, each.run)
	}
	<-idle
}

type testCase struct {
	name string
	run  func()
}

// run reports what comes of a case, which panics where something does not hold.
func (s *Suite) run(name string, run func()) {
	start := time.Now()
	failure := func() (failure any) {
		defer func() { failure = recover() }()
		run()
		return nil
	}()
	report := map[string]any{"case": name, "ok": failure == nil, "seconds": time.Since(start).Seconds()}
	if failure != nil {
		report["error"] = fmt.Sprint(failure)
	}
	s.print(report)
}

// ask has the test do something with the server, and waits until it is done.
func (s *Suite) ask(what string) {
	s.print(map[string]any{"ask": what})
	require(s.answers.Scan(), "nobody answered to %q", what)
}

// answered notes that an rpc was answered.
func (s *Suite) answered(method string) {
	s.output.Lock()
	known := s.called[method]
	s.called[method] = true
	s.output.Unlock()
	if !known {
		s.print(map[string]any{"rpc": method})
	}
}

func (s *Suite) print(line map[string]any) {
	text := must(json.Marshal(line))
	s.output.Lock()
	defer s.output.Unlock()
	fmt.Println(string(text))
}
