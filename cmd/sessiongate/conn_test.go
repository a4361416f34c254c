package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/cmd/sessiongate/config"
)

// patience is limits.write_timeout of these tests.
const patience = 400 * time.Millisecond

// pair is a connection by way of a patientListener, and the browser's end of it,
// which has room for little.
func pair(t *testing.T, timeout time.Duration, room int) (ours, browser net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var limit atomic.Int64
	limit.Store(int64(timeout))
	p := newPatientListener(l, 0, &limit)
	t.Cleanup(func() { p.Close() })
	if browser, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if err := browser.(*net.TCPConn).SetReadBuffer(room); err != nil {
		t.Fatal(err)
	}
	if ours, err = p.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); browser.Close() })
	return ours, browser
}

// ways are how an answer is written.
func ways(t *testing.T) map[string]func(io.Writer) error {
	name := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(name, make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]func(io.Writer) error{
		"a body": func(w io.Writer) error {
			for range 4096 {
				if _, err := w.Write(make([]byte, 16<<10)); err != nil {
					return err
				}
			}
			return nil
		},
		"a large write": func(w io.Writer) error {
			_, err := w.Write(make([]byte, 64<<20))
			return err
		},
		"a file": func(w io.Writer) error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(w, io.LimitReader(f, 64<<20))
			return err
		},
	}
}

func TestHT10WhoTakesNothingIsCutOff(t *testing.T) {
	t.Parallel()
	for name, write := range ways(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, browser := pair(t, patience, 4096)
			began := time.Now()
			err := write(ours)
			if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took < patience || took > 10*time.Second {
				t.Errorf("error = %v after %v; want a deadline that passed after %v", err, took, patience)
			}
			ours.Close()
			if _, err := io.Copy(io.Discard, browser); err == nil {
				t.Error("the browser takes the answer for a whole one")
			}
		})
	}
}

// Bytes that are taken need not make room in the socket's buffer for a long time:
// of a file that is sent as here, for about a second.
func TestHT10WhoTakesLittleAtATimeIsNotCutOff(t *testing.T) {
	t.Parallel()
	for name, write := range ways(t) {
		// Loopback opens the window of a peer by its large segments, of which a write
		// makes more than sendfile does.
		timeout, room, some, every := time.Second, 256<<10, 16<<10, 25*time.Millisecond
		if name == "a file" {
			timeout, room, some, every = patience, 64<<10, 8<<10, 50*time.Millisecond
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, browser := pair(t, timeout, room)
			if err := ours.(*patientConn).SetWriteBuffer(2 << 20); err != nil { // as one grows that was read fast
				t.Fatal(err)
			}
			failed := make(chan error, 1)
			go func() { failed <- write(ours) }()
			tick := time.NewTicker(every)
			defer tick.Stop()
			part := make([]byte, some)
			for began := time.Now(); time.Since(began) < 3*time.Second; {
				select {
				case err := <-failed:
					t.Fatalf("cut off: %v", err)
				case <-tick.C:
				}
				if _, err := io.ReadFull(browser, part); err != nil {
					t.Fatal(err)
				}
			}
			// Then nothing.
			if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("error = %v, want a deadline that passed", err)
			}
		})
	}
}

// All of it arrives, in order, when it took longer than the time-out.
func TestHT10ASlowAnswerIsWhole(t *testing.T) {
	t.Parallel()
	content := make([]byte, 8<<20)
	for i := range content {
		content[i] = byte(i >> 8)
	}
	name := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	ours, browser := pair(t, patience, 256<<10)
	failed := make(chan error, 1)
	go func() {
		f, err := os.Open(name)
		if err == nil {
			defer f.Close()
			_, err = io.Copy(ours, io.LimitReader(f, int64(len(content))))
		}
		ours.Close()
		failed <- err
	}()
	got, part := 0, make([]byte, 256<<10)
	tick := time.NewTicker(patience / 10)
	defer tick.Stop()
	for got < len(content) {
		n, err := browser.Read(part)
		for i := range n {
			if part[i] != byte((got+i)>>8) {
				t.Fatalf("byte %d is %d", got+i, part[i])
			}
		}
		got += n
		if err != nil {
			break
		}
		if got < len(content)/4 {
			<-tick.C
		}
	}
	if err := <-failed; err != nil || got != len(content) {
		t.Errorf("%d of %d bytes, %v", got, len(content), err)
	}
}

// Whoever serves may be in more of a hurry, and may have been idle before.
func TestAWriteDeadlineHolds(t *testing.T) {
	t.Parallel()
	const patience = 1500 * time.Millisecond // a busy machine has time for the shorter deadline
	ours, _ := pair(t, patience, 4096)
	large := make([]byte, 64<<20)
	if _, err := ours.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(patience * 5 / 4)
	if _, err := ours.Write([]byte("x")); err != nil {
		t.Errorf("after a rest: %v", err)
	}
	began := time.Now()
	_ = ours.SetWriteDeadline(began.Add(patience / 30))
	if _, err := ours.Write(large); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) > patience {
		t.Errorf("error = %v after %v, want a deadline that passed after %v", err, time.Since(began), patience/30)
	}
	_ = ours.SetWriteDeadline(time.Time{})
	began = time.Now()
	if _, err := ours.Write(large); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) < patience {
		t.Errorf("without the deadline: error = %v after %v", err, time.Since(began))
	}
}

func TestAWriteTimeoutOfZeroIsNone(t *testing.T) {
	t.Parallel()
	ours, browser := pair(t, 0, 4096)
	failed := make(chan error, 1)
	go func() {
		_, err := ours.Write(make([]byte, 64<<20))
		failed <- err
	}()
	select {
	case err := <-failed:
		t.Errorf("cut off: %v", err)
	case <-time.After(3 * patience):
	}
	browser.Close()
	<-failed
}

// A connection of HTTP/2 that nobody reads ends, and its handlers with it. One
// stream would wait for its own window, which is not the connection's.
func TestHT10AnHTTP2ConnectionThatNobodyReads(t *testing.T) {
	t.Parallel()
	const streams = 8
	var serving sync.WaitGroup
	serving.Add(streams)
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer serving.Done()
		for {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	}))
	var limit atomic.Int64
	limit.Store(int64(patience))
	front.Listener = newPatientListener(front.Listener, 0, &limit)
	front.EnableHTTP2 = true
	front.StartTLS()
	defer front.Close()
	client := front.Client()
	held := &heldConn{gate: make(chan struct{})}
	defer close(held.gate)
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		var err error
		held.Conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return held, err
	}
	for range streams {
		res, err := client.Get(front.URL)
		if err != nil || res.ProtoMajor != 2 {
			t.Fatalf("%v, %v", res, err)
		}
		defer res.Body.Close()
		go io.Copy(io.Discard, res.Body)
	}
	held.hold.Store(true)
	over := make(chan struct{})
	go func() { serving.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(20 * patience):
		t.Fatal("the handlers still write")
	}
}

// heldConn can stop reading.
type heldConn struct {
	net.Conn
	hold atomic.Bool
	gate chan struct{}
}

func (h *heldConn) Read(p []byte) (int, error) {
	if h.hold.Load() {
		<-h.gate
	}
	return h.Conn.Read(p)
}

// Connections that are open already go by what is in force.
func TestAReloadChangesTheWriteTimeout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	parse := func(limits string) *config.Config {
		t.Helper()
		text := settings{routes: `- {path: /api/, upstream: "http://127.0.0.1:9"}`, more: limits}.String()
		c, err := config.Parse(filepath.Join(dir, "config.yaml"), []byte(strings.ReplaceAll(text, "${TEST_SECRET}", "canary")))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	s, err := newServer(parse(""), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.discard()
	if got := time.Duration(s.writeTimeout.Load()); got != time.Minute {
		t.Errorf("at first it is %v, want the default", got)
	}
	if err := s.adopt(parse("limits: {write_timeout: 7s}")); err != nil {
		t.Fatal(err)
	}
	if got := time.Duration(s.writeTimeout.Load()); got != 7*time.Second {
		t.Errorf("after a reload it is %v, want 7s", got)
	}
}

// BenchmarkWrite is what patience costs a write that does not block.
func BenchmarkWrite(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var limit atomic.Int64
	limit.Store(int64(time.Minute))
	p := newPatientListener(l, 0, &limit)
	defer p.Close()
	browser, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer browser.Close()
	go io.Copy(io.Discard, browser)
	ours, err := p.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer ours.Close()
	answer := make([]byte, 800)
	for _, row := range []struct {
		name string
		to   io.Writer
	}{{"bare", ours.(*patientConn).TCPConn}, {"patient", ours}} {
		b.Run(row.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := row.to.Write(answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
