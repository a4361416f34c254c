package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/session/boltstore"
)

func TestAChangedConfigurationIsPutInForce(t *testing.T) {
	t.Parallel()
	_, config := site(t, settings{})
	g := start(t, config)
	write(t, config, settings{routes: "- {path: /new/, strip_prefix: /new, static: {dir: dist, fallback: index.html}, auth: none}"}.String())
	g.signal(syscall.SIGHUP)
	g.await("config_reloaded")
	if status, body := g.get("/new/index.html"); status != 200 {
		t.Errorf("the new route: %d %s", status, body)
	}
	if status, _ := g.get("/index.html"); status != 404 {
		t.Errorf("the former route: %d", status)
	}
	if n := g.metric(`sessiongate_config_reloads_total{result="ok"}`); n != "1" {
		t.Errorf("reloads counted: %s", n)
	}
	if code := g.stop(); code != 0 {
		t.Errorf("exit code: %d\n%s", code, g.output())
	}
}

func TestABadConfigurationIsRefusedAndTheFormerGoesOn(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, config, want string }{
		{"unknown key", settings{more: "    rutes: []"}.String(), "unknown key"},
		{"no YAML", "apps: [", "not YAML"},
		{"no app built", settings{routes: "- {path: /, static: {dir: absent}, auth: none}"}.String(), "static.dir"},
		{"an upstream that no path can be put behind", settings{routes: `- {path: /, upstream: "http://127.0.0.1:1/a/../b"}`}.String(), "cannot be served"},
		{"another listener", settings{listen: "127.0.0.1:1"}.String(), "needs a restart"},
		{"another admin socket", settings{socket: "other.sock"}.String(), "needs a restart"},
		{"another number of HTTP/2 streams", settings{more: "limits: {h2_streams: 7}"}.String(), "needs a restart"},
		{"another number of sessions in memory", settings{more: "limits: {sessions_in_memory: 70}"}.String(), "needs a restart"},
		{"another store", settings{store: "other.db"}.String(), "needs a restart"},
		{"another kind of store", settings{redis: "127.0.0.1:1"}.String(), "session.store: was changed, which needs a restart"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, config := site(t, settings{})
			g := start(t, config)
			write(t, config, row.config)
			g.signal(syscall.SIGHUP)
			refused := g.await("config_refused")
			if !strings.Contains(refused["error"].(string), row.want) {
				t.Errorf("the log says %q, want %q in it", refused["error"], row.want)
			}
			if status, _ := g.get("/"); status != 200 {
				t.Errorf("the app: %d", status)
			}
			if n := g.metric(`sessiongate_config_reloads_total{result="refused"}`); n != "1" {
				t.Errorf("refused reloads counted: %s", n)
			}
			if status, body := g.ask("http://"+g.admin+"/readyz", ""); status != 200 || !strings.Contains(body, "refused") {
				t.Errorf("readyz: %d %s", status, body)
			}
			write(t, config, settings{}.String())
			g.signal(syscall.SIGHUP)
			g.await("config_reloaded")
			if _, body := g.ask("http://"+g.admin+"/readyz", ""); strings.Contains(body, "refused") {
				t.Errorf("readyz after the repair: %s", body)
			}
		})
	}
}

// A secret in a mounted volume changes by a swap of the directory it is linked
// through, as Kubernetes does it; nobody sends a signal.
func TestASwappedSecretIsSeenWithoutASignal(t *testing.T) {
	t.Parallel()
	dir, config := site(t, settings{keys: []string{"${file:secrets/key}"}})
	mount := filepath.Join(dir, "secrets")
	if err := os.MkdirAll(filepath.Join(mount, "..1"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(mount, "..1/key"), testKey)
	link(t, "..1", filepath.Join(mount, "..data"))
	link(t, "..data/key", filepath.Join(mount, "key"))
	g := start(t, config)

	if err := os.Mkdir(filepath.Join(mount, "..2"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(mount, "..2/key"), secondKey)
	former, err := os.Stat(filepath.Join(mount, "..1/key"))
	if err != nil {
		t.Fatal(err)
	}
	// Size and time tell nothing: both came out of one archive.
	if err := os.Chtimes(filepath.Join(mount, "..2/key"), time.Time{}, former.ModTime()); err != nil {
		t.Fatal(err)
	}
	link(t, "..2", filepath.Join(mount, "..data.new"))
	if err := os.Rename(filepath.Join(mount, "..data.new"), filepath.Join(mount, "..data")); err != nil {
		t.Fatal(err)
	}
	g.await("config_reloaded")
}

// The start may take long, by the check of a large store: what changes meanwhile
// is seen then.
func TestASecretThatChangesDuringTheStartIsSeen(t *testing.T) {
	t.Parallel()
	admin := gatewaytest.FreeAddress(t)
	dir, config := site(t, settings{admin: admin, keys: []string{"${file:key}"}})
	write(t, filepath.Join(dir, "key"), testKey)
	busy, err := boltstore.Open(filepath.Join(dir, "sessions.db"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g := launch(t, config)
	eventually(t, "the gateway has read its files", func() bool {
		conn, err := net.Dial("tcp", admin)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	write(t, filepath.Join(dir, "key"), secondKey)
	if err := busy.Close(); err != nil { // which the gateway waits for
		t.Fatal(err)
	}
	g.await("config_reloaded")
}

// A file that a refused configuration waits for makes it right when it comes.
func TestARefusedConfigurationIsTriedAgainWhenItsFileComes(t *testing.T) {
	t.Parallel()
	dir, config := site(t, settings{})
	g := start(t, config)
	write(t, config, settings{keys: []string{"${file:late}"}}.String())
	g.await("config_refused")
	write(t, filepath.Join(dir, "late"), secondKey)
	g.await("config_reloaded")
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}
