package main

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Not parallel: the umask is the process's.
func TestTheSocketIsPrivateFromItsFirstMoment(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(shortDir(t), "s")
	l, err := listenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
}

func TestWhatIsInTheSocketsPlace(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		put  func(path string) error
		want string // "": it is replaced
	}{
		{"nothing", func(string) error { return nil }, ""},
		{"a socket that nobody listens on", leaveSocket, ""},
		{"a socket that somebody listens on", func(path string) error { return keepSocket(t, path) }, "another process answers"},
		{"a file", func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) }, "is no socket"},
		{"a directory", func(path string) error { return os.Mkdir(path, 0o700) }, "is no socket"},
		{"a link to a socket that nobody listens on", func(path string) error {
			if err := leaveSocket(path + "2"); err != nil {
				return err
			}
			return os.Symlink(path+"2", path)
		}, "is no socket"},
		{"a path below a file", func(path string) error { return os.WriteFile(filepath.Dir(path), nil, 0o600) }, "not a directory"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(shortDir(t), "s")
			if row.want == "not a directory" {
				path += "/t"
			}
			if err := row.put(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(path)
			l, err := listenSocket(path)
			if row.want != "" {
				after, _ := os.Lstat(path)
				if err == nil || !strings.Contains(err.Error(), row.want) || before != nil && !os.SameFile(before, after) {
					t.Errorf("error = %v, want %q in it and nothing touched", err, row.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			l.Close()
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("after the end: %v, want it gone", err)
			}
		})
	}
}

// leaveSocket leaves behind what a killed process does.
func leaveSocket(path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l.Close()
}

func keepSocket(t *testing.T, path string) error {
	l, err := net.Listen("unix", path)
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return err
}

// The real program: it leaves no socket behind, and takes the place of one that
// a killed process left.
func TestTheSocketComesAndGoesWithTheGateway(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(shortDir(t), "admin.sock")
	_, config := site(t, settings{socket: socket})
	g := start(t, config)
	if err := g.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-g.ended
	if _, err := os.Lstat(socket); err != nil {
		t.Fatalf("the killed gateway left no socket: %v", err)
	}
	g = start(t, config)
	if info, err := os.Lstat(socket); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, g.output())
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket after the end: %v", err)
	}
}

func TestASocketThatCannotBeIsToldWithItsKey(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(shortDir(t), "admin.sock")
	_, config := site(t, settings{socket: socket})
	start(t, config)
	for name, row := range map[string]struct {
		settings
		want string
	}{
		"two gateways":     {settings{socket: socket, store: "other.db"}, "another process answers"},
		"no directory":     {settings{socket: filepath.Join(filepath.Dir(socket), "none", "s")}, "no such file or directory"},
		"a path too long":  {settings{socket: filepath.Join(filepath.Dir(socket), strings.Repeat("x", 100))}, "too long"},
		"the store's path": {settings{socket: "sessions.db"}, "is the path of the store"},
	} {
		t.Run(name, func(t *testing.T) {
			_, config := site(t, row.settings)
			code, _, stderr := sessiongate(t, "serve", "-config", config)
			if code == 0 || !containsAll(stderr, "admin.socket: ", row.want) {
				t.Errorf("exit code %d\n%s", code, stderr)
			}
		})
	}
	if code, _, stderr := sessiongate(t, "sessions", "list", "-config", config); code != 0 {
		t.Errorf("the first gateway lost its socket: %s", stderr)
	}
}
