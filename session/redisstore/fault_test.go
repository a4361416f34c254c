package redisstore

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sessiongate/session"
)

func random[T ~[32]byte]() T {
	var b [32]byte
	rand.Read(b[:])
	return T(b)
}

// record is one of a session that began a minute ago and may last.
func record(tags ...session.Tag) session.Record {
	now := time.Now().Truncate(time.Millisecond)
	return session.Record{
		Binding: random[[32]byte](), Began: now.Add(-2 * time.Minute), Created: now.Add(-time.Minute),
		Used: now.Add(-time.Minute), Expires: now.Add(time.Hour),
		Tags: tags, Listing: []byte("listing"), Data: []byte("data"),
	}
}

func create(t testing.TB, s *Store, rec session.Record) session.Key {
	t.Helper()
	key := random[session.Key]()
	if err := s.Create(t.Context(), key, rec); err != nil {
		t.Fatalf("Create: %v", err)
	}
	return key
}

// calls are all that a store can be asked.
func calls(s *Store, key session.Key, tag session.Tag) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Create":  func(ctx context.Context) error { return s.Create(ctx, random[session.Key](), record(tag)) },
		"Load":    func(ctx context.Context) error { _, err := s.Load(ctx, key); return err },
		"Replace": func(ctx context.Context) error { return s.Replace(ctx, key, 1, []byte("new")) },
		"End": func(ctx context.Context) error {
			_, err := s.End(ctx, key, session.Logout, session.Condition{})
			return err
		},
		"EndTagged": func(ctx context.Context) error {
			_, err := s.EndTagged(ctx, tag, session.Logout, session.Scope{})
			return err
		},
		"Mark": func(ctx context.Context) error {
			return s.Mark(ctx, tag, session.Mark{Reason: session.BackChannel, Until: time.Now().Add(time.Hour)})
		},
		"Tagged": func(ctx context.Context) error { _, err := s.Tagged(ctx, tag, session.Key{}, 10); return err },
		"Touch": func(ctx context.Context) error {
			return s.Touch(ctx, []session.Touch{{Key: key, At: time.Now()}})
		},
		"Once":         func(ctx context.Context) error { return s.Once(ctx, key, time.Now().Add(time.Hour)) },
		"Once ran out": func(ctx context.Context) error { return s.Once(ctx, key, time.Now().Add(-time.Hour)) },
		"Acquire":      func(ctx context.Context) error { _, err := s.Acquire(ctx, key, time.Minute); return err },
		"Renew": func(ctx context.Context) error {
			return s.Renew(ctx, session.Lease{Key: key, Token: "token"}, time.Minute)
		},
		"Release": func(ctx context.Context) error { return s.Release(ctx, session.Lease{Key: key, Token: "token"}) },
		"Sweep": func(ctx context.Context) error {
			_, err := s.Sweep(ctx, session.Limits{Now: time.Now(), Idle: time.Hour})
			return err
		},
		"Count":     func(ctx context.Context) error { _, err := s.Count(ctx); return err },
		"Ping":      func(ctx context.Context) error { return s.Ping(ctx) },
		"ClockSkew": func(ctx context.Context) error { _, err := s.ClockSkew(ctx); return err },
	}
}

// isAnswer tells an error that callers take for an answer.
func isAnswer(err error) bool {
	return errors.Is(err, session.ErrAbsent) || errors.Is(err, session.ErrConflict) ||
		errors.Is(err, session.ErrExists) || errors.Is(err, session.ErrLeaseLost)
}

// wantUnknown wants an error of the third kind, that is not the caller's own.
func wantUnknown(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil || isAnswer(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.Errorf("%s: error = %v, want one that says nothing about the session", what, err)
	}
}

// wantAllUnknown asks everything.
func wantAllUnknown(t *testing.T, s *Store) {
	t.Helper()
	var wg sync.WaitGroup
	for name, call := range calls(s, random[session.Key](), random[session.Tag]()) {
		wg.Go(func() { wantUnknown(t, name, call(t.Context())) })
	}
	wg.Wait()
}

// eventually wants something to be so before long.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for begun := time.Now(); time.Since(begun) < patient; time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// fake is a server that greets and then gives one answer to everything.
func fake(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go converse(conn, answer)
		}
	}()
	return l.Addr().String()
}

// converse reads commands, each an array of bulk strings.
func converse(conn net.Conn, answer string) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		var words, length int
		if _, err := fmt.Fscanf(r, "*%d\r\n", &words); err != nil {
			return
		}
		var name string
		for i := range words {
			if _, err := fmt.Fscanf(r, "$%d\r\n", &length); err != nil {
				return
			}
			word := make([]byte, length+2)
			if _, err := readFull(r, word); err != nil {
				return
			}
			if i == 0 {
				name = string(word[:length])
			}
		}
		say := answer
		if name == "HELLO" {
			say = "%2\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n"
		}
		if name == "CLIENT" {
			say = "+OK\r\n"
		}
		if _, err := conn.Write([]byte(say)); err != nil {
			return
		}
	}
}

func readFull(r *bufio.Reader, b []byte) (int, error) {
	for n := range b {
		var err error
		if b[n], err = r.ReadByte(); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// pains 40, 41: what a server says in trouble is not taken for a logout.
func TestAnswersInTroubleAreUnknown(t *testing.T) {
	for _, row := range []struct{ name, answer string }{
		{"a server that loads its data", "-LOADING Redis is loading the dataset in memory\r\n"},
		{"a replica", "-READONLY You can't write against a read only replica.\r\n"},
		{"a replica without its master", "-MASTERDOWN Link with MASTER is down\r\n"},
		{"no authentication", "-NOAUTH Authentication required.\r\n"},
		{"no permission", "-NOPERM this user has no permissions to run the command\r\n"},
		{"no memory", "-OOM command not allowed when used memory > 'maxmemory'.\r\n"},
		{"no disk", "-MISCONF Redis is configured to save RDB snapshots\r\n"},
		{"too few replicas", "-NOREPLICAS Not enough good replicas to write.\r\n"},
		{"a cluster with a hole", "-CLUSTERDOWN Hash slot not served\r\n"},
		{"a node of a cluster", "-MOVED 1 127.0.0.1:1\r\n"},
		{"a script that hangs", "-BUSY Redis is busy running a script.\r\n"},
		{"a script that was not there twice", "-NOSCRIPT No matching script.\r\n"},
		{"a key of another type", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"},
		{"an error without a name", "-\r\n"},
		{"an empty array", "*0\r\n"},
		{"an array of nothing known", "*1\r\n$4\r\nwhat\r\n"},
		{"an array of numbers", "*3\r\n:1\r\n:2\r\n:3\r\n"},
		{"an end without its reason", "*1\r\n$5\r\nended\r\n"},
		{"a map", "%1\r\n+a\r\n+b\r\n"},
		{"a truth", "#t\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := openWith(t, Options{Addresses: []string{fake(t, row.answer)}, Timeout: 200 * time.Millisecond})
			for name, call := range calls(s, random[session.Key](), random[session.Tag]()) {
				err := call(t.Context())
				if fits(name, row.answer) && err == nil {
					continue // it is an answer to that
				}
				wantUnknown(t, name, err)
			}
		})
	}
}

// fits tells whether a server that is well might answer so.
func fits(call, answer string) bool {
	switch call {
	case "Ping", "Touch":
		return !strings.HasPrefix(answer, "-")
	case "Once":
		return !strings.HasPrefix(answer, "-")
	}
	return false
}

func TestServerThatIsNotThere(t *testing.T) {
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Addresses: []string{"127.0.0.1:" + port}}
	for _, row := range []struct {
		name   string
		change func(*Options)
	}{
		{"one", func(*Options) {}},
		{"a cluster", func(o *Options) { o.Cluster = true }},
		{"one behind sentinels", func(o *Options) { o.Sentinel.Master = "master" }},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := o
			row.change(&o)
			wantAllUnknown(t, openWith(t, o))
		})
	}
}

// pains 44: a gateway that is up before its store waits for it.
func TestServerThatComesLater(t *testing.T) {
	sv := launch(t)
	sv.kill()
	s := openAt(t, sv)
	wantUnknown(t, "Ping", s.Ping(t.Context()))
	if err := sv.start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Ping", func() error { return s.Ping(t.Context()) })
	create(t, s, record())
}

// pains 40: a restart is not a logout, unless the data is gone.
func TestServerThatWasKilled(t *testing.T) {
	for _, row := range []struct {
		name string
		args []string
		kept bool
	}{
		{"with what it wrote to disk", []string{"--appendonly", "yes", "--appendfsync", "always"}, true},
		{"without anything on disk", nil, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			sv := launch(t, row.args...)
			s := openAt(t, sv)
			tag := random[session.Tag]()
			live, gone := create(t, s, record(tag)), create(t, s, record(tag))
			if _, err := s.End(t.Context(), gone, session.Logout, session.Condition{}); err != nil {
				t.Fatalf("End: %v", err)
			}
			sv.kill()
			wantAllUnknown(t, s)
			if err := sv.start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "Ping", func() error { return s.Ping(t.Context()) })
			_, liveErr := s.Load(t.Context(), live)
			_, goneErr := s.Load(t.Context(), gone)
			var ended *session.Ended
			if row.kept && (liveErr != nil || !errors.As(goneErr, &ended)) {
				t.Errorf("Load = %v and %v, want found and ended", liveErr, goneErr)
			}
			if !row.kept && (liveErr != session.ErrAbsent || goneErr != session.ErrAbsent) {
				t.Errorf("Load = %v and %v, want absent", liveErr, goneErr)
			}
			create(t, s, record(tag)) // the scripts are known again
		})
	}
}

// A server that says nothing keeps nobody longer than the time-out, and no more
// goroutines than there is room for.
func TestServerThatStandsStill(t *testing.T) {
	sv := launch(t)
	const timeout = 200 * time.Millisecond
	s := openWith(t, Options{Addresses: []string{sv.addr()}, Timeout: timeout})
	key := create(t, s, record())
	other := openWith(t, Options{Addresses: []string{sv.addr()}, Prefix: s.opts.Prefix})
	if _, err := other.Load(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	sv.signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), timeout/10)
	defer cancel()
	if _, err := other.Load(ctx, key); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Load: error = %v, want the caller's %v", err, context.DeadlineExceeded)
	}
	begun := time.Now()
	var wg sync.WaitGroup
	var late atomic.Int64
	for range 3 * maxCalls { // more than rueidis queues
		wg.Go(func() {
			begun := time.Now()
			_, err := s.Load(t.Context(), key)
			wantUnknown(t, "Load", err)
			if time.Since(begun) > patient/2 {
				late.Add(1)
			}
		})
	}
	wg.Wait()
	wantAllUnknown(t, s)
	if late.Load() > 0 {
		t.Errorf("%d calls lasted longer than %v with a time-out of %v", late.Load(), patient/2, timeout)
	}
	t.Logf("%d calls of a server that stood still took %v", 3*maxCalls, time.Since(begun))
	sv.signal(syscall.SIGCONT)
	eventually(t, "Load", func() error { _, err := s.Load(t.Context(), key); return err })
}

func TestCloseWithServerThatStandsStill(t *testing.T) {
	sv := launch(t)
	s := openWith(t, Options{Addresses: []string{sv.addr()}, Timeout: 200 * time.Millisecond})
	create(t, s, record())
	sv.signal(syscall.SIGSTOP)
	go s.Ping(context.Background())
	begun := time.Now()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if waited := time.Since(begun); waited > patient/2 {
		t.Errorf("Close took %v", waited)
	}
}

func TestServerThatPauses(t *testing.T) {
	sv := launch(t)
	s := openWith(t, Options{Addresses: []string{sv.addr()}, Timeout: 300 * time.Millisecond})
	key := create(t, s, record())
	sv.must(t, "CLIENT", "PAUSE", "5000", "WRITE")
	wantUnknown(t, "Replace", s.Replace(t.Context(), key, 1, []byte("new")))
	sv.must(t, "CLIENT", "UNPAUSE")
	// What was under way when its caller gave up was done once, or not at all.
	eventually(t, "Load", func() error {
		rec, err := s.Load(t.Context(), key)
		if err == nil && rec.Version > 2 {
			t.Errorf("version %d", rec.Version)
		}
		return err
	})
}

// A server without memory lets nobody in, but everybody out, and those who are in
// go on: a use that is not known looks like none, and a token has to be refreshed.
func TestServerWithoutMemory(t *testing.T) {
	sv := launch(t, "--maxmemory-policy", "noeviction")
	s := openAt(t, sv)
	tag := random[session.Tag]()
	replaced, ended := create(t, s, record()), create(t, s, record())
	tagged := create(t, s, record(tag))
	idle := record()
	idle.Used = time.Now().Add(-45 * time.Minute)
	swept, used := create(t, s, idle), create(t, s, idle)
	for name, call := range calls(s, random[session.Key](), random[session.Tag]()) { // the scripts are known
		if err := call(t.Context()); err != nil && !isAnswer(err) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	sv.must(t, "CONFIG", "SET", "maxmemory", "1")

	key, other := random[session.Key](), random[session.Tag]()
	wantUnknown(t, "Create", s.Create(t.Context(), key, record(other)))
	all := calls(s, key, tag)
	wantUnknown(t, "Once", all["Once"](t.Context()))
	barred := random[session.Tag]()
	m := session.Mark{Reason: session.BackChannel, BeganBefore: time.Now(), Until: time.Now().Add(time.Hour)}
	if err := s.Mark(t.Context(), barred, m); err != nil {
		t.Errorf("Mark: %v", err)
	}
	if err := s.Touch(t.Context(), []session.Touch{{Key: used, At: time.Now()}}); err != nil {
		t.Errorf("Touch: %v", err)
	}
	lease, err := s.Acquire(t.Context(), key, time.Minute)
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Acquire(soon, key, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Acquire of what is held: %v", err)
	}
	if err := errors.Join(s.Renew(t.Context(), lease, time.Minute), s.Release(t.Context(), lease)); err != nil {
		t.Errorf("Renew and Release: %v", err)
	}
	if _, err := s.Load(t.Context(), key); err != session.ErrAbsent {
		t.Errorf("Load of what was not created: %v", err)
	}
	if listed, err := s.Tagged(t.Context(), other, session.Key{}, 10); err != nil || len(listed) > 0 {
		t.Errorf("Tagged of what was not created = %v, %v", listed, err)
	}
	if err := s.Replace(t.Context(), replaced, 1, make([]byte, 5000)); err != nil {
		t.Errorf("Replace: %v", err)
	}
	if rec, err := s.Load(t.Context(), replaced); err != nil || len(rec.Data) != 5000 {
		t.Errorf("Load = %d bytes, %v", len(rec.Data), err)
	}
	if _, err := s.End(t.Context(), ended, session.Logout, session.Condition{}); err != nil {
		t.Errorf("End: %v", err)
	}
	if endings, err := s.EndTagged(t.Context(), tag, session.Logout, session.Scope{}); err != nil || len(endings) != 1 {
		t.Errorf("EndTagged = %v, %v", endings, err)
	}
	if endings, err := s.Sweep(t.Context(), session.Limits{Now: time.Now(), Idle: 30 * time.Minute}); err != nil || len(endings) != 1 {
		t.Errorf("Sweep = %v, %v", endings, err)
	}
	for _, key := range []session.Key{ended, tagged, swept} {
		var end *session.Ended
		if _, err := s.Load(t.Context(), key); !errors.As(err, &end) {
			t.Errorf("Load: %v, want that it ended", err)
		}
	}
	if _, err := s.Load(t.Context(), used); err != nil {
		t.Errorf("Load of a session in use: %v", err)
	}
	sv.must(t, "CONFIG", "SET", "maxmemory", "0")
	rec := record(barred)
	rec.Began = m.BeganBefore.Add(-time.Second)
	var end *session.Ended
	if err := s.Create(t.Context(), random[session.Key](), rec); !errors.As(err, &end) {
		t.Errorf("Create of what was marked: %v", err)
	}
}

// pains 41: a master that became a replica writes nothing and logs nobody out.
func TestServerThatBecameAReplica(t *testing.T) {
	master, sv := launch(t), launch(t)
	s := openAt(t, sv)
	key := create(t, s, record())
	sv.must(t, "REPLICAOF", "127.0.0.1", master.port)
	sv.must(t, "CONFIG", "SET", "replica-serve-stale-data", "yes")
	all := calls(s, key, random[session.Tag]())
	for _, name := range []string{"Create", "Replace", "End", "Touch", "Once", "Acquire", "Mark"} {
		wantUnknown(t, name, all[name](t.Context()))
	}
	sv.must(t, "REPLICAOF", "NO", "ONE")
	if err := s.Once(t.Context(), key, time.Now().Add(time.Hour)); err != nil {
		t.Errorf("Once: %v", err)
	}
}

// A password that is wrong is unknown too, and is not told.
func TestPassword(t *testing.T) {
	sv := launch(t)
	sv.must(t, "ACL", "SETUSER", "gateway", "on", ">correct-horse", "~sessiongate:*", "+@all", "-@dangerous", "+info")
	sv.must(t, "ACL", "SETUSER", "default", "off")
	var password atomic.Value
	password.Store("battery-staple")
	s := openWith(t, Options{
		Addresses: []string{sv.addr()}, Prefix: "sessiongate:",
		Credentials: func() (string, string, error) { return "gateway", password.Load().(string), nil },
	})
	for name, call := range calls(s, random[session.Key](), random[session.Tag]()) {
		err := call(t.Context())
		wantUnknown(t, name, err)
		if err != nil && (strings.Contains(err.Error(), "battery") || strings.Contains(err.Error(), "horse")) {
			t.Errorf("%s tells the password: %v", name, err)
		}
	}
	password.Store("correct-horse")
	eventually(t, "Ping", func() error { return s.Ping(t.Context()) })
	for name, call := range calls(s, random[session.Key](), random[session.Tag]()) {
		if err := call(t.Context()); err != nil && !isAnswer(err) {
			t.Errorf("%s as a user who may use keys with the prefix only: %v", name, err)
		}
	}
	wantAllUnknown(t, openAt(t, sv)) // without credentials
	failing := openWith(t, Options{
		Addresses:   []string{sv.addr()},
		Credentials: func() (string, string, error) { return "", "", errors.New("no such file") },
	})
	wantAllUnknown(t, failing)
}

// A server that does not know HELLO or AUTH quotes what it was sent.
func TestErrorsQuoteNoCommand(t *testing.T) {
	sv := fake(t, "-ERR unknown command 'EVALSHA', with args beginning with: 'secret-data' \r\n")
	s := openWith(t, Options{Addresses: []string{sv}})
	for name, call := range calls(s, random[session.Key](), random[session.Tag]()) {
		if err := call(t.Context()); err == nil || strings.Contains(err.Error(), "secret-data") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// One that gives up while its question is under way may have the lease when nobody
// wants it any more. Others do not wait until it runs out.
func TestLeaseThatNobodyWaitsFor(t *testing.T) {
	for _, row := range []struct {
		name    string
		timeout time.Duration // of the store
		give    time.Duration // of the caller
	}{
		{"the caller gave up", patient, 50 * time.Millisecond},
		{"the store gave up", 50 * time.Millisecond, patient},
	} {
		t.Run(row.name, func(t *testing.T) {
			sv := launch(t)
			s := openWith(t, Options{Addresses: []string{sv.addr()}, Timeout: row.timeout})
			eventually(t, "Acquire", func() error { // the script is known then
				_, err := s.Acquire(t.Context(), random[session.Key](), time.Minute)
				return err
			})
			key := random[session.Key]()
			sv.must(t, "CLIENT", "PAUSE", "600000", "WRITE")
			ctx, cancel := context.WithTimeout(t.Context(), row.give)
			defer cancel()
			if _, err := s.Acquire(ctx, key, time.Hour); err == nil {
				t.Error("Acquire of a server that pauses: no error")
			}
			sv.must(t, "CLIENT", "UNPAUSE")
			other := openWith(t, Options{Addresses: []string{sv.addr()}, Prefix: s.opts.Prefix})
			ctx, cancel = context.WithTimeout(t.Context(), patient)
			defer cancel()
			if _, err := other.Acquire(ctx, key, time.Hour); err != nil {
				t.Errorf("Acquire: %v", err)
			}
		})
	}
}
