package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sessiongate/e2e/gatewaytest"
)

func TestUsageAndExitCodes(t *testing.T) {
	t.Parallel()
	_, good := site(t, settings{})
	_, unknown := site(t, settings{more: "    rutes: []"})
	_, weak := site(t, settings{keys: []string{strings.Repeat("Y2FuYXJ5", 6)}}) // canary, six times
	_, tokenOnly := site(t, settings{token: adminToken, admin: gatewaytest.FreeAddress(t)})
	_, socketOnly := site(t, settings{socket: filepath.Join(shortDir(t), "s")})
	_, keyless := site(t, settings{keys: []string{"${file:absent}"}})
	_, unbuilt := site(t, settings{routes: "- {path: /, static: {dir: absent}, auth: none}"})
	for _, row := range []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{"help is no error", []string{"help"}, 0, "sessiongate check -config FILE", ""},
		{"-h of a command neither", []string{"serve", "-h"}, 0, "", "the configuration file"},
		{"version", []string{"version"}, 0, "sessiongate ", ""},
		{"--version", []string{"--version"}, 0, "sessiongate ", ""},
		{"an unknown command", []string{"srve"}, 2, "", `there is no command "srve"`},
		{"an unknown flag", []string{"serve", "-conf", "x"}, 2, "", "flag provided but not defined"},
		{"an argument too many", []string{"keygen", "x"}, 2, "", `unexpected argument "x"`},
		{"serve without configuration", []string{"serve"}, 2, "", "-config FILE is missing"},
		{"a configuration that is not there", []string{"serve", "-config", "absent.yaml"}, 2, "", "no such file"},
		{"check of one that is not there", []string{"check", "-config", "absent.yaml"}, 2, "", "no such file"},
		{"a directory for a configuration", []string{"check", "-config", t.TempDir()}, 2, "", "is not a regular file"},
		{"check tells every problem", []string{"check", "-config", unknown}, 2, "", `apps[0].rutes: unknown key; did you mean "routes"?`},
		{"serve refuses what check does", []string{"serve", "-config", unknown}, 2, "", "unknown key"},
		{"a weak key is refused", []string{"serve", "-config", weak}, 2, "", "session.keys[0]: is a weak key"},
		{"a missing key is refused", []string{"serve", "-config", keyless}, 2, "", "session.keys[0]: refers to a file that cannot be read"},
		{"an app that is not built is told", []string{"check", "-config", unbuilt}, 2, "", "apps[0].routes[0].static.dir: is not a directory"},
		{"a good configuration is ok", []string{"check", "-config", good}, 0, "ok, 1 app", ""},
		{"check shows what routes do", []string{"check", "-config", good}, 0, "for everybody, without the session", ""},
		{"help has two words, too", []string{"help"}, 0, "sessiongate sessions revoke -config FILE ID", ""},
		{"sessions of what", []string{"sessions"}, 2, "", "list or revoke"},
		{"sessions with a third word", []string{"sessions", "end"}, 2, "", "list or revoke"},
		{"-h of sessions list", []string{"sessions", "list", "-h"}, 0, "", "only of the user with this sub"},
		{"sessions list without configuration", []string{"sessions", "list"}, 2, "", "-config FILE is missing"},
		{"sessions list of one that is not there", []string{"sessions", "list", "-config", "absent.yaml"}, 2, "", "no such file"},
		{"sessions list with an argument", []string{"sessions", "list", "-config", good, "x"}, 2, "", `unexpected argument "x"`},
		{"sessions without a way in", []string{"sessions", "list", "-config", good}, 2, "", "set admin: {socket:"},
		{"sessions revoke without configuration", []string{"sessions", "revoke", "x"}, 2, "", "-config FILE is missing"},
		{"revoke of nothing", []string{"sessions", "revoke", "-config", good}, 2, "", "say which"},
		{"revoke of a user everywhere", []string{"sessions", "revoke", "-config", good, "-sub", "ada"}, 2, "", "say which"},
		{"revoke of an app's users", []string{"sessions", "revoke", "-config", good, "-app", "x", "-sub", ""}, 2, "", "say which"},
		{"revoke of two", []string{"sessions", "revoke", "a", "-config", good, "b"}, 2, "", "one ID at a time"},
		{"revoke of one and of all", []string{"sessions", "revoke", "a", "-config", good, "-sub", "ada"}, 2, "", "neither -app nor -sub"},
		{"revoke at a gateway that does not run", []string{"sessions", "revoke", "a", "-config", tokenOnly}, 1, "", "connection refused; does it run by this configuration?"},
		{"list at a gateway that does not run", []string{"sessions", "list", "-config", socketOnly}, 1, "", "no such file or directory; does it run by this configuration?"},
		{"healthcheck of nobody", []string{"healthcheck", "-config", good}, 1, "", "connection refused"},
		{"demo wants loopback", []string{"demo", "-listen", "0.0.0.0:8080"}, 2, "", "loopback only"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := sessiongate(t, row.args...)
			if code != row.code || !strings.Contains(stdout, row.stdout) || !strings.Contains(stderr, row.stderr) {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", code, row.code, stdout, stderr)
			}
		})
	}
}

func TestKeygenMakesKeysThatAreAccepted(t *testing.T) {
	t.Parallel()
	_, key, _ := sessiongate(t, "keygen")
	_, other, _ := sessiongate(t, "keygen")
	if key == other {
		t.Error("the same key twice")
	}
	_, config := site(t, settings{keys: []string{strings.TrimSpace(key)}})
	if code, _, stderr := sessiongate(t, "check", "-config", config); code != 0 {
		t.Errorf("check refuses the key: %s", stderr)
	}
}

// OP-07: without the provider it starts, serves files and is ready.
func TestServeStartsWithoutTheProviderAndEndsCleanly(t *testing.T) {
	t.Parallel()
	dir, config := site(t, settings{admin: gatewaytest.FreeAddress(t)})
	g := start(t, config)
	if status, body := g.get("/some/page"); status != 404 {
		t.Errorf("a path that is no file, from a script: %d %s", status, body)
	}
	if status, body := g.get("/"); status != 200 || !strings.Contains(body, "shop") {
		t.Errorf("the app: %d %s", status, body)
	}
	for _, args := range [][]string{{"healthcheck", "-config", config}, {"healthcheck", "-ready", "-config", config}} {
		if code, stdout, stderr := sessiongate(t, args...); code != 0 {
			t.Errorf("%v: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
	if status, body := g.ask("http://"+g.admin+"/readyz", ""); status != 200 || !strings.Contains(body, `"http://localhost:8080":"unavailable"`) {
		t.Errorf("readyz: %d %s", status, body)
	}
	// A configuration that was spoilt meanwhile says nothing about the process.
	write(t, config, settings{admin: g.admin, more: "unknown: 1"}.String())
	if code, _, stderr := sessiongate(t, "healthcheck", "-config", config); code != 0 {
		t.Errorf("healthcheck with a spoilt configuration: exit code %d\n%s", code, stderr)
	}
	if code := g.stop(); code != 0 {
		t.Errorf("exit code after SIGTERM: %d\n%s", code, g.output())
	}
	if code, _, _ := sessiongate(t, "healthcheck", "-config", config); code != 1 {
		t.Errorf("healthcheck of an ended gateway: exit code %d", code)
	}
	if info, err := os.Stat(filepath.Join(dir, "sessions.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the store: %v, %v", info, err)
	}
}

func TestASecondProcessOnOneStoreIsToldSo(t *testing.T) {
	t.Parallel()
	_, config := site(t, settings{})
	start(t, config)
	code, _, stderr := sessiongate(t, "serve", "-config", config)
	if code != 1 || !strings.Contains(stderr, "is open in another process") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

func TestAnAddressThatIsTakenIsToldWithItsKey(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, config := site(t, settings{listen: l.Addr().String()})
	code, _, stderr := sessiongate(t, "serve", "-config", config)
	if code != 1 || !strings.Contains(stderr, "listen: ") || !strings.Contains(stderr, "address already in use") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

func TestWhileStoppingItIsNotReadyButServes(t *testing.T) {
	t.Parallel()
	_, config := site(t, settings{delay: "2s"})
	g := start(t, config)
	g.signal(syscall.SIGTERM)
	g.await("stopping")
	if status, body := g.ask("http://"+g.admin+"/readyz", ""); status != 503 || !strings.Contains(body, `"stopping":true`) {
		t.Errorf("readyz: %d %s", status, body)
	}
	if status, _ := g.get("/"); status != 200 {
		t.Errorf("the app: %d", status)
	}
	if code := g.exit(); code != 0 {
		t.Errorf("exit code: %d\n%s", code, g.output())
	}
}

func TestASignalAfterTheFirstEndsItAtOnce(t *testing.T) {
	t.Parallel()
	_, config := site(t, settings{delay: "1h"})
	g := start(t, config)
	g.signal(syscall.SIGTERM)
	g.await("stopping")
	// One that follows at once is taken for the same.
	eventually(t, "the end", func() bool {
		_ = g.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-g.ended:
			return true
		default:
			return false
		}
	})
	if code := g.exit(); code == 0 {
		t.Error("exit code 0")
	}
}
