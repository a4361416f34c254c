// Package gatewaytest runs the real binary, for tests that see the gateway from
// outside: over the network, by its log, and killed without warning.
package gatewaytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Build compiles the gateway into dir and returns the binary's path. Flags go to
// go build; with -race a data race makes the gateway exit with status 66.
func Build(dir string, flags ...string) (string, error) {
	binary := filepath.Join(dir, "sessiongate")
	args := append([]string{"build", "-o", binary}, flags...)
	cmd := exec.Command("go", append(args, "sessiongate/cmd/sessiongate")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("gatewaytest: go build: %w\n%s", err, out)
	}
	return binary, nil
}

// consult looks at the gateway's sources. go test notes what files a test has
// looked at, and keeps a result only until one of them changes: without this a
// test would pass from the cache whatever became of the gateway. It takes no note
// of what happens before the first test begins.
var consult = sync.OnceValue(func() error {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("gatewaytest: go env: %w", err)
	}
	root := filepath.Dir(string(bytes.TrimSpace(out)))
	for _, dir := range []string{"client", "cmd", "internal", "oidc", "proxy", "session"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("gatewaytest: sources: %w", err)
		}
	}
	return nil
})

// Gateway is an installation of the gateway: binary, configuration and store.
// Its process comes and goes.
type Gateway struct {
	Process
	config string
	listen string
	admin  string
	log    log
}

// sessionKey is the same for all gateways, as it has to be for replicas.
const sessionKey = "YSBzZXNzaW9uIGtleSBmb3IgdGVzdHMgb25seSwgMzIgYnl0ZXMgYW5kIG1vcmU="

// Install writes a configuration: the given keys, completed by what most tests
// want. Nothing runs yet.
func Install(t testing.TB, binary string, config map[string]any) *Gateway {
	t.Helper()
	if err := consult(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	g := &Gateway{config: filepath.Join(dir, "sessiongate.yaml"), admin: FreeAddress(t)}
	g.listen, _ = config["listen"].(string)
	g.Process = newProcess(t, "sessiongate", func() *exec.Cmd {
		cmd := exec.Command(binary, "serve", "-config", g.config)
		cmd.Stdout, cmd.Stderr = &g.log, &g.log
		return cmd
	})
	config = complete(config, map[string]any{
		"admin":            map[string]any{"listen": g.admin},
		"log":              map[string]any{"level": "debug"},
		"shutdown_delay":   "0s",
		"shutdown_timeout": "5s",
		"limits":           map[string]any{"login_per_minute": 0},
	})
	given, _ := config["session"].(map[string]any)
	config["session"] = complete(given, map[string]any{
		"keys":  []string{sessionKey},
		"store": map[string]any{"bbolt": map[string]any{"path": filepath.Join(dir, "sessions.db")}},
	})
	text, err := json.MarshalIndent(config, "", " ") // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if g.Running() {
			g.Resume()
			g.Stop()
		}
		if t.Failed() {
			t.Logf("sessiongate's log:\n%s", g.log.tail(20_000))
		}
	})
	return g
}

// complete adds what is not given.
func complete(given, defaults map[string]any) map[string]any {
	all := map[string]any{}
	maps.Copy(all, defaults)
	maps.Copy(all, given)
	return all
}

// Start runs the gateway and waits until it is ready.
func (g *Gateway) Start() {
	g.t.Helper()
	g.Launch()
	g.AwaitReady()
}

// Launch runs the gateway, ready or not.
func (g *Gateway) Launch() {
	g.t.Helper()
	g.launch()
}

// AwaitReady waits until the gateway is ready.
func (g *Gateway) AwaitReady() {
	g.t.Helper()
	for end := time.Now().Add(stopPatience); ; time.Sleep(10 * time.Millisecond) {
		if g.Ready() {
			return
		}
		if !g.Running() || time.Now().After(end) {
			g.t.Fatal("sessiongate is not ready")
		}
	}
}

// asking is for readiness, which a gateway that stands still does not tell.
var asking = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// Ready asks whether the gateway is ready.
func (g *Gateway) Ready() bool {
	res, err := asking.Get("http://" + g.admin + "/readyz")
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// Reload has the gateway read its configuration again.
func (g *Gateway) Reload() {
	g.t.Helper()
	if _, err := g.signal(syscall.SIGHUP, false); err != nil {
		g.t.Fatal(err)
	}
}

// Config is the configuration file.
func (g *Gateway) Config() string { return g.config }

// Listen is the address that it serves at.
func (g *Gateway) Listen() string { return g.listen }

// Admin is the address of the admin listener.
func (g *Gateway) Admin() string { return g.admin }

// Events counts the log's objects with that audit event, of every process since
// the installation.
func (g *Gateway) Events(name string) int {
	return g.log.count(name)
}

// Logged returns the log's objects with that audit event, of every process since
// the installation.
func (g *Gateway) Logged(event string) []map[string]any {
	var all []map[string]any
	for line := range bytes.Lines(g.Log()) {
		var object map[string]any
		if json.Unmarshal(line, &object) == nil && object["event"] == event {
			all = append(all, object)
		}
	}
	return all
}

// Log is all that the gateway wrote since the installation.
func (g *Gateway) Log() []byte { return g.log.tail(math.MaxInt) }

// log is what the gateway wrote, read while it writes.
type log struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) count(event string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.buf.Bytes(), fmt.Appendf(nil, `"event":%q`, event))
}

func (l *log) tail(n int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buf.Bytes()
	return bytes.Clone(b[max(0, len(b)-n):])
}

// given are the ports that FreeAddress has returned.
var given sync.Map

// FreeAddress returns a loopback address that nobody listens on, and never the
// same twice. It is from below the range that systems take ports from for
// outgoing connections, or one of those could get it first.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.N(20_000)
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		return l.Addr().String()
	}
	t.Fatal("gatewaytest: no port is free")
	return ""
}
