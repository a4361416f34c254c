package grpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
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

// startGateway builds and runs the real binary with one app and more keys, and waits until it is ready. It is stopped
// with the test, which fails if it did not end well.
func startGateway(t *testing.T, listen string, app, more map[string]any) {
	t.Helper()
	dir := t.TempDir()
	binary := buildGateway(t)
	admin := freeAddress(t)
	settings := map[string]any{
		"listen":           listen,
		"admin":            map[string]any{"listen": admin},
		"shutdown_delay":   "0s",
		"shutdown_timeout": "5s",
		"log":              map[string]any{"level": "debug"},
		"session": map[string]any{
			"keys":  []string{"c2Vzc2lvbi1rZXktb2YtdGhlLWdycGMtdGVzdHMtb25seS1vay0="},
			"store": map[string]any{"bbolt": map[string]any{"path": filepath.Join(dir, "sessions.db")}},
		},
		"apps": []any{app},
	}
	maps.Copy(settings, more)
	config, err := json.Marshal(settings) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "sessiongate.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(binary, "serve", "-config", file)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill := time.AfterFunc(15*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("sessiongate: %v", err)
		}
		if t.Failed() {
			t.Logf("sessiongate's log:\n%s", &log)
		}
	})
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		res, err := http.Get("http://" + admin + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("sessiongate is not ready: %v", err)
		}
	}
}

var built struct {
	sync.Once
	path string
	out  []byte
	err  error
}

// buildGateway compiles the gateway once, with the race detector.
func buildGateway(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		built.path = filepath.Join(binaries, "sessiongate")
		cmd := exec.Command("go", "build", "-race", "-o", built.path, "./cmd/sessiongate")
		cmd.Dir = filepath.Join("..", "..")
		built.out, built.err = cmd.CombinedOutput()
	})
	if built.err != nil {
		t.Fatalf("go build: %v\n%s", built.err, built.out)
	}
	return built.path
}

// given are the ports that freeAddress has returned.
var given sync.Map

// freeAddress returns a loopback address that nobody listens on, never the same twice, and none that an outgoing
// connection could get.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.N(20_000)
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}
