// Package disk holds the gateway against what disks do: they are full, or may not
// be written, and the store's file is somebody else's, another's, or damaged.
package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

var binary string

func TestMain(m *testing.M) {
	gatewaytest.Main(m, &binary, "-race")
}

// disk is a file system of its own, in the namespaces of a process that lives as
// long as the test.
type disk struct {
	t      *testing.T
	holder *exec.Cmd
	// at is where those in the namespaces see it.
	at string
}

// newDisk makes a disk of a few megabytes.
func newDisk(t *testing.T, megabytes int) *disk {
	t.Helper()
	d := &disk{t: t, at: t.TempDir()}
	d.holder = exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
		fmt.Sprintf(`mount -t tmpfs -o size=%dm,mode=0700 tmpfs "$0" && echo mounted && exec cat`, megabytes), d.at)
	d.holder.Stderr = os.Stderr
	in, err := d.holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := d.holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // cat ends, and the disk with it
		d.holder.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "mounted\n" {
		t.Fatalf("no disk: %q, %v", line, err)
	}
	return d
}

// enter is how a command is run that sees the disk.
func (d *disk) enter(command ...string) []string {
	return append([]string{"nsenter", "--user", "--mount", "--preserve-credentials", "--target", fmt.Sprint(d.holder.Process.Pid)}, command...)
}

// seen is where this process sees a file of the disk.
func (d *disk) seen(name string) string {
	return fmt.Sprintf("/proc/%d/root%s/%s", d.holder.Process.Pid, d.at, name)
}

// fill leaves no room.
func (d *disk) fill() {
	d.t.Helper()
	file, err := os.Create(d.seen("filler"))
	if err != nil {
		d.t.Fatal(err)
	}
	_, err = io.Copy(file, endless{})
	if !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatalf("filling the disk: %v", err)
	}
	file.Close()
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// free takes back what fill took.
func (d *disk) free() {
	d.t.Helper()
	if err := os.Remove(d.seen("filler")); err != nil {
		d.t.Fatal(err)
	}
}

// remount changes the mount's options.
func (d *disk) remount(options string) {
	d.t.Helper()
	args := d.enter("mount", "-o", "remount,"+options, d.at)
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		d.t.Fatalf("mount: %v\n%s", err, out)
	}
}

// gateway is a gateway whose store is on the disk.
func (d *disk) gateway() *gatewaytest.World {
	d.t.Helper()
	wrapper := filepath.Join(d.t.TempDir(), "gateway")
	script := "#!/bin/sh\nexec " + strings.Join(d.enter(), " ") + " " + binary + " \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o700); err != nil {
		d.t.Fatal(err)
	}
	return world(d.t, wrapper, filepath.Join(d.at, "sessions.db"))
}

func world(t *testing.T, binary, path string) *gatewaytest.World {
	t.Helper()
	return gatewaytest.NewWorld(t, binary, gatewaytest.Options{
		Users: []devprovider.User{{Sub: "ada", Email: "ada@example.com"}, {Sub: "bob", Email: "bob@example.com"}},
		Store: map[string]any{"bbolt": map[string]any{"path": path}},
	})
}

const valid = "200 token valid"

func wantCall(t *testing.T, b *gatewaytest.Browser, want string) {
	t.Helper()
	if answer, err := b.Call(); err != nil || answer.String() != want {
		t.Errorf("API: %v, %v, want %s", answer, err, want)
	}
}

func logIn(t *testing.T, w *gatewaytest.World, user string) *gatewaytest.Browser {
	t.Helper()
	b := w.NewBrowser()
	if _, err := b.Login(user); err != nil {
		t.Fatal(err)
	}
	return b
}

// loginsUntilRefused logs in, each time in a browser of its own, until the store
// has no room for another: it fills what is free in its file first.
func loginsUntilRefused(t *testing.T, w *gatewaytest.World, user string) *gatewaytest.Answer {
	t.Helper()
	for range 2000 {
		b := w.NewBrowser()
		answer, err := b.Login(user)
		if errors.Is(err, gatewaytest.ErrNotLoggedIn) {
			if b.Session() != "" {
				t.Error("a cookie was set for a session that there is not")
			}
			return answer
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("a full disk takes any number of logins")
	return nil
}

// On a full disk sessions go on, and nobody is logged out; logins and logouts are
// answered by 503 until there is room, with no restart (pains.md, b9; ST-09).
func TestDiskFull(t *testing.T) {
	t.Parallel()
	d := newDisk(t, 4)
	w := d.gateway()
	w.Gateway.Start()
	ada, eve := logIn(t, w, "ada"), logIn(t, w, "ada")
	d.fill()

	if answer := loginsUntilRefused(t, w, "bob"); answer.Status != http.StatusServiceUnavailable {
		t.Errorf("login: %s, want 503", answer)
	}
	cookie := ada.Session()
	for range 20 {
		wantCall(t, ada, valid)
	}
	// A logout needs less room than a login and may find it. What it says is true.
	evesState := "401 session_required"
	if answer, err := eve.Fetch("POST", "/bff/logout"); err != nil {
		t.Fatal(err)
	} else if answer.Status != http.StatusOK {
		evesState = valid
		if answer.String() != "503 store_unavailable" || eve.Session() == "" {
			t.Errorf("logout: %s, cookie kept: %t; want 503 store_unavailable, and the cookie kept", answer, eve.Session() != "")
		}
	}
	if w.Gateway.Events("store_damaged") > 0 {
		t.Error("a full disk passes for damage")
	}

	// A start without room serves what there is.
	w.Gateway.Stop()
	w.Gateway.Start()
	wantCall(t, ada, valid)
	wantCall(t, eve, evesState)
	if ada.Session() != cookie {
		t.Error("the cookie has changed")
	}
	if answer := loginsUntilRefused(t, w, "bob"); answer.Status != http.StatusServiceUnavailable {
		t.Errorf("login: %s, want 503", answer)
	}

	d.free()
	bob := logIn(t, w, "bob")
	wantCall(t, bob, valid)
	wantCall(t, ada, valid)
	if err := ada.Logout(); err != nil {
		t.Error(err)
	}
	w.Gateway.Stop()
	w.Gateway.Start()
	wantCall(t, bob, valid)
	wantCall(t, eve, evesState)
	wantCall(t, ada.Steal(w, cookie), "401 session_ended logout")
	if n := w.Gateway.Events("store_quarantined"); n > 0 {
		t.Error("a full disk has damaged the file")
	}
}

// refused runs a gateway that has to end by itself with status 1, and returns what
// it said.
func refused(t *testing.T, within time.Duration, args []string) string {
	t.Helper()
	begun := time.Now()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("it ended with %v, want status 1\n%s", err, out)
	}
	if took := time.Since(begun); took > within {
		t.Errorf("it took %v to say so, want %v", took, within)
	}
	return string(out)
}

func wantSaid(t *testing.T, said string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("it said %q, want %q in it", said, part)
		}
	}
}

// startPatience is what a start may take here, in a binary with the race detector,
// beside the second that it waits for the file.
const startPatience = 10 * time.Second

func TestStartWhereNothingCanBeWritten(t *testing.T) {
	t.Parallel()
	d := newDisk(t, 4)
	w := d.gateway()
	serve := d.enter(binary, "serve", "-config", w.Gateway.Config())

	d.fill()
	wantSaid(t, refused(t, startPatience, serve), "sessions.db", "no space left on device", "the disk is full")
	d.free()
	d.remount("ro")
	wantSaid(t, refused(t, startPatience, serve), "sessions.db", "read-only file system", "mount it for writing")
	d.remount("rw")

	w.Gateway.Start()
	if n := w.Gateway.Events("store_quarantined"); n > 0 {
		t.Error("what a full disk left of a new file passes for damage")
	}
	ada := logIn(t, w, "ada")
	w.Gateway.Stop()
	d.remount("ro")
	wantSaid(t, refused(t, startPatience, serve), "sessions.db", "read-only file system", "mount it for writing")
	d.remount("rw")
	w.Gateway.Start()
	wantCall(t, ada, valid)
}

func TestASecondProcessSaysWhyAndEnds(t *testing.T) { // ST-10
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	w := world(t, binary, path)
	w.Gateway.Start()
	ada := logIn(t, w, "ada")
	second := world(t, binary, path)
	said := refused(t, startPatience, []string{binary, "serve", "-config", second.Gateway.Config()})
	wantSaid(t, said, path+" is open in another process", "one bbolt file serves one process", "stop the other one")
	wantCall(t, ada, valid)
}

// Whatever is in the file's place: the gateway starts, says what it did, and people
// can log in. Nothing is thrown away.
func TestADamagedFileIsNoCrashLoop(t *testing.T) {
	for _, row := range []struct {
		name   string
		damage func(b []byte) []byte
	}{
		{"truncated", func(b []byte) []byte { return b[:3*os.Getpagesize()] }},
		{"a bit has flipped", func(b []byte) []byte { b[40] ^= 4; return b }}, // in a meta page
		{"of a newer version", func(b []byte) []byte {
			return []byte(strings.ReplaceAll(string(b), "format\x03", "format\x09"))
		}},
		{"nothing but zeroes", func(b []byte) []byte { clear(b); return b }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "sessions.db")
			w := world(t, binary, path)
			w.Gateway.Start()
			ada := logIn(t, w, "ada")
			w.Gateway.Stop()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b = row.damage(b)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}

			w.Gateway.Start()
			wantCall(t, ada, "401 session_required")
			if _, err := ada.Login("ada"); err != nil {
				t.Fatal(err)
			}
			w.Gateway.Stop()
			w.Gateway.Start()
			wantCall(t, ada, valid)
			told := w.Gateway.Logged("store_quarantined")
			if len(told) != 1 {
				t.Fatalf("it was told %d times, want once", len(told))
			}
			aside, _ := told[0]["set_aside"].(string)
			if kept, err := os.ReadFile(aside); err != nil || string(kept) != string(b) {
				t.Errorf("the file that was set aside: %v, want it as it was", err)
			}
		})
	}
}

// A file that is damaged while the gateway has it open must not end the gateway,
// and the next start must not fail for it.
func TestAFileThatIsDamagedUnderARunningGateway(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	w := world(t, binary, path)
	w.Gateway.Start()
	ada := logIn(t, w, "ada")
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(make([]byte, info.Size())); err != nil {
		t.Fatal(err)
	}
	file.Close()

	if answer, err := w.NewBrowser().Login("bob"); !errors.Is(err, gatewaytest.ErrNotLoggedIn) || answer.Status != http.StatusServiceUnavailable {
		t.Errorf("login: %v, %v, want 503", answer, err)
	}
	wantCall(t, ada, valid) // from memory
	if n := w.Gateway.Events("store_damaged"); n != 1 {
		t.Errorf("it was told %d times, want once", n)
	}
	if w.Gateway.Ready() {
		t.Error("it says that it is ready")
	}
	w.Gateway.Kill()
	w.Gateway.Start()
	if _, err := ada.Login("ada"); err != nil {
		t.Error(err)
	}
	wantCall(t, ada, valid)
	if n := w.Gateway.Events("store_quarantined"); n != 1 {
		t.Errorf("quarantine was told %d times, want once", n)
	}
}
