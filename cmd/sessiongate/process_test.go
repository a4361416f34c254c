package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asCommand makes this test binary behave as sessiongate, so that the tests run
// the real program, with the race detector where they have it.
const asCommand = "SESSIONGATE_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Setenv(asCommand, "1") // of gateways that gatewaytest starts
	os.Exit(m.Run())
}

// canary is in every secret of these tests, and so in nothing that is printed.
const canary = "canary"

const (
	testKey   = "canaryq9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTk"
	secondKey = "canaryW3x0Qq9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bF"
)

func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "TEST_SECRET=canary-from-the-environment")
	return cmd
}

// sessiongate runs a command to its end.
func sessiongate(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := program(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if args[0] != "keygen" && strings.Contains(out.String()+errs.String(), canary) {
		t.Errorf("sessiongate %v printed a secret:\n%s%s", args, out.String(), errs.String())
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// settings are what tests change in the configuration; the zero value is good.
type settings struct {
	listen, admin, token, socket, store, redis, delay, client, logout, routes, more string
	keys                                                                            []string
	maxPerUser                                                                      int
}

func (s settings) String() string {
	or := func(value, otherwise string) string {
		if value == "" {
			return otherwise
		}
		return value
	}
	keys, err := json.Marshal(s.keys) // JSON is YAML
	if err != nil || s.keys == nil {
		keys = []byte(`["` + testKey + `"]`)
	}
	store := fmt.Sprintf("bbolt: {path: %q}", or(s.store, "sessions.db"))
	if s.redis != "" {
		store = fmt.Sprintf("redis: {addresses: [%q]}", s.redis)
	}
	return fmt.Sprintf(`
listen: %q
admin: {listen: %q, token: %q, socket: %q}
shutdown_delay: %s
shutdown_timeout: 5s
session:
  keys: %s
  max_per_user: %d
  store: {%s}
apps:
  - origin: http://localhost:8080
    oidc:
      issuer: http://127.0.0.1:1
      client_id: %s
      client_secret: "${TEST_SECRET}"
      logout: {%s}
    routes:
      %s
%s`, or(s.listen, "127.0.0.1:0"), or(s.admin, "127.0.0.1:0"), s.token, s.socket, or(s.delay, "0s"), keys, s.maxPerUser, store,
		or(s.client, "shop"), s.logout, or(s.routes, "- {path: /, static: {dir: dist, fallback: index.html}, auth: none}"), s.more)
}

// site makes a directory with a built app and a configuration.
func site(t *testing.T, s settings) (dir, config string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "dist"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "dist/index.html"), "<!doctype html><title>shop</title>")
	config = filepath.Join(dir, "config.yaml")
	write(t, config, s.String())
	return dir, config
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// gateway is a running sessiongate serve.
type gateway struct {
	t             *testing.T
	cmd           *exec.Cmd
	public, admin string // host:port

	mu     sync.Mutex // guards lines
	lines  []string
	ended  chan struct{}
	client *http.Client
}

// start serves a configuration and waits until it is ready.
func start(t *testing.T, config string) *gateway {
	t.Helper()
	g := launch(t, config)
	ready := g.await("ready")
	g.public, g.admin = ready["listen"].(string), ready["admin"].(string)
	return g
}

// launch is start without waiting.
func launch(t *testing.T, config string) *gateway {
	t.Helper()
	g := &gateway{t: t, cmd: program(t, "serve", "-config", config), ended: make(chan struct{}), client: &http.Client{Transport: &http.Transport{}}}
	logs, err := g.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go g.read(logs)
	t.Cleanup(func() {
		_ = g.cmd.Process.Kill()
		<-g.ended
		if out := g.output(); strings.Contains(out, canary) {
			t.Errorf("the log holds a secret:\n%s", out)
		}
	})
	return g
}

func (g *gateway) read(logs io.Reader) {
	for lines := bufio.NewScanner(logs); lines.Scan(); {
		g.mu.Lock()
		g.lines = append(g.lines, lines.Text())
		g.mu.Unlock()
	}
	_ = g.cmd.Wait()
	close(g.ended)
}

func (g *gateway) output() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.lines, "\n")
}

// await waits for the first event of that name.
func (g *gateway) await(event string) map[string]any {
	g.t.Helper()
	var found map[string]any
	eventually(g.t, "the event "+event, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, line := range g.lines {
			var entry map[string]any
			if json.Unmarshal([]byte(line), &entry) == nil && entry["event"] == event {
				found = entry
				return true
			}
		}
		select {
		case <-g.ended:
			g.t.Fatalf("the gateway ended:\n%s", strings.Join(g.lines, "\n"))
		default:
		}
		return false
	})
	return found
}

// get asks the public listener; the app is at localhost:8080.
func (g *gateway) get(path string) (status int, body string) {
	g.t.Helper()
	return g.ask("http://"+g.public+path, "localhost:8080")
}

// metric is one line of the metrics, without its name.
func (g *gateway) metric(name string) string {
	g.t.Helper()
	_, body := g.ask("http://"+g.admin+"/metrics", "")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (g *gateway) ask(url, host string) (status int, body string) {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Host = host
	res, err := g.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func (g *gateway) signal(s os.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(s); err != nil {
		g.t.Fatal(err)
	}
}

// stop asks the gateway to end and returns its exit code.
func (g *gateway) stop() int {
	g.t.Helper()
	g.signal(syscall.SIGTERM)
	return g.exit()
}

func (g *gateway) exit() int {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 20*time.Second)
	defer cancel()
	select {
	case <-g.ended:
	case <-ctx.Done():
		g.t.Fatalf("the gateway does not end:\n%s", g.output())
	}
	return g.cmd.ProcessState.ExitCode()
}

// eventually polls the world outside this process, which tells nobody when it
// changes.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !happened(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 15 s", what)
		}
	}
}
