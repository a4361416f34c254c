package boltstore

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	crand "crypto/rand"

	"sessiongate/session"
)

// These variables turn the test program into another process with the store in
// the named file.
const (
	childOpen   = "BOLTSTORE_TEST_OPEN"
	childWrite  = "BOLTSTORE_TEST_WRITE"
	childDamage = "BOLTSTORE_TEST_DAMAGE"
)

func TestMain(m *testing.M) {
	path := os.Getenv(childOpen) + os.Getenv(childWrite) + os.Getenv(childDamage)
	if path == "" {
		os.Exit(m.Run())
	}
	s, err := Open(path, Options{Log: slog.New(slog.NewJSONHandler(os.Stdout, nil))})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv(childWrite) != "" {
		writeUntilKilled(s)
	}
	if os.Getenv(childDamage) != "" {
		useDamaged(s)
	}
}

// writeUntilKilled writes sessions from several goroutines and prints a line
// for each write that was acknowledged. The file is compacted all the while.
func writeUntilKilled(s *Store) {
	ctx := context.Background()
	must := func(err error, key session.Key, what string) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("%x %s\n", key, what)
	}
	for range 8 {
		go func() {
			for {
				var key session.Key
				crand.Read(key[:])
				now := time.Now()
				tag := session.Tag(key)
				must(s.Create(ctx, key, session.Record{
					Created: now, Used: now, Expires: now.Add(time.Hour), Tags: []session.Tag{tag}, Data: make([]byte, 3000),
				}), key, "create 1")
				must(s.Replace(ctx, key, 1, []byte("second")), key, "replace 2")
				must(s.Touch(ctx, []session.Touch{{Key: key, At: now.Add(time.Minute)}}), key, "touch 0")
				must(s.Once(ctx, key, now.Add(time.Hour)), key, "once 0")
				must(s.Mark(ctx, markedTag(key), session.Mark{Reason: session.BackChannel, BeganBefore: now, Until: now.Add(time.Hour)}), key, "mark 0")
				switch rand.N(3) {
				case 0:
					_, err := s.End(ctx, key, session.Logout, session.Condition{})
					must(err, key, "end 0")
				case 1:
					_, err := s.EndTagged(ctx, tag, session.Logout, session.Scope{})
					must(err, key, "end 0")
				}
			}
		}()
	}
	for {
		if err := s.compact(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// markedTag is the tag that is marked where a session of the key was written.
func markedTag(key session.Key) session.Tag {
	return sha256.Sum256(key[:])
}

// acknowledged is what a killed process had been told is on disk, of one session.
type acknowledged struct {
	version uint64
	once    bool
	marked  bool
	ended   bool
}

func TestWhatWasAcknowledgedSurvivesKill9(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	all := map[string]*acknowledged{}
	compacted := 0
	for round := 0; round < 8 || compacted == 0 && round < 100; round++ { // on the same file
		child := exec.Command(os.Args[0], "-test.run=^$")
		child.Env = append(os.Environ(), childWrite+"="+path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		lines.Scan() // it is writing
		time.AfterFunc(rand.N(250*time.Millisecond), func() { _ = child.Process.Kill() })
		note(t, all, lines.Text())
		for lines.Scan() {
			note(t, all, lines.Text())
			if strings.Contains(lines.Text(), `"event":"store_compacted"`) {
				compacted++
			}
		}
		if err := child.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}

		s, log := openWith(t, path, Options{rest: time.Hour})
		if told := log.lines(t, "store_quarantined"); len(told) > 0 {
			t.Fatalf("a crash has damaged the file: %v", told)
		}
		wantOnly(t, path)
		for key, ack := range all {
			wantAcknowledged(t, s, key, *ack)
		}
		wantConsistent(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if compacted == 0 {
		t.Error("the file was never compacted")
	}
	t.Logf("%d sessions, %d compactions", len(all), compacted)
}

func note(t *testing.T, all map[string]*acknowledged, line string) {
	t.Helper()
	key, rest, _ := strings.Cut(line, " ")
	var what string
	var version uint64
	if _, err := fmt.Sscanf(rest, "%s %d", &what, &version); err != nil || len(key) != 64 {
		return // cut off by the kill
	}
	if all[key] == nil {
		all[key] = &acknowledged{}
	}
	ack := all[key]
	ack.version = max(ack.version, version)
	ack.once = ack.once || what == "once"
	ack.marked = ack.marked || what == "mark"
	ack.ended = ack.ended || what == "end"
}

func wantAcknowledged(t *testing.T, s *Store, hex string, ack acknowledged) {
	t.Helper()
	var raw []byte
	if _, err := fmt.Sscanf(hex, "%x", &raw); err != nil {
		t.Fatal(err)
	}
	key := session.Key(raw)
	rec, err := s.Load(t.Context(), key)
	var ended *session.Ended
	switch {
	case errors.As(err, &ended): // an end may have been on disk without being told of
	case err != nil:
		t.Errorf("%x was acknowledged: %v", key[:4], err)
	case ack.ended:
		t.Errorf("%x had ended and is back", key[:4])
	case rec.Version < ack.version:
		t.Errorf("%x has version %d, %d was acknowledged", key[:4], rec.Version, ack.version)
	}
	if ack.once {
		if err := s.Once(t.Context(), key, time.Now()); !errors.Is(err, session.ErrExists) {
			t.Errorf("Once of %x: error = %v, want %v", key[:4], err, session.ErrExists)
		}
	}
	if ack.marked {
		late := session.Record{Began: time.Now().Add(-time.Hour), Tags: []session.Tag{markedTag(key)}}
		err := s.Create(t.Context(), session.Key(markedTag(key)), late)
		if !errors.As(err, &ended) || ended.Reason != session.BackChannel {
			t.Errorf("Create of a login that was marked: error = %v, want it to have ended", err)
		}
	}
}

func TestEverythingIsThereAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := openAt(t, path)
	keys := fill(t, s, 200)
	used := time.Now().Add(time.Minute)
	for i, key := range keys[:100] {
		if err := s.Replace(t.Context(), key, 1, []byte("new")); err != nil {
			t.Fatal(err)
		}
		if i < 50 {
			if _, err := s.End(t.Context(), key, session.Logout, session.Condition{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Touch(t.Context(), []session.Touch{{Key: keys[60], At: used}}); err != nil {
		t.Fatal(err)
	}
	lease, err := s.Acquire(t.Context(), keys[0], time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openAt(t, path)
	for i, key := range keys {
		rec, err := s.Load(t.Context(), key)
		var ended *session.Ended
		if i < 50 { // ended
			if !errors.As(err, &ended) || ended.Reason != session.Logout {
				t.Errorf("Load of an ended session: %v", err)
			}
			continue
		}
		want := uint64(1)
		if i < 100 {
			want = 2
		}
		if err != nil || rec.Version != want {
			t.Errorf("Load: version %d, %v, want %d", rec.Version, err, want)
		}
	}
	if rec, err := s.Load(t.Context(), keys[60]); err != nil || !rec.Used.Equal(used) {
		t.Errorf("Used = %v, %v, want %v", rec.Used, err, used)
	}
	if n, err := s.Count(t.Context()); err != nil || n != 150 {
		t.Errorf("Count = %d, %v, want 150", n, err)
	}
	// A lease does not outlive its process: the next start must not wait for it.
	if err := s.Renew(t.Context(), lease, time.Hour); !errors.Is(err, session.ErrLeaseLost) {
		t.Errorf("Renew: error = %v, want %v", err, session.ErrLeaseLost)
	}
	if _, err := s.Acquire(t.Context(), keys[0], time.Hour); err != nil {
		t.Errorf("Acquire: %v", err)
	}
	wantConsistent(t, s)
}

func TestCloseLosesNothingThatWasAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := openAt(t, path)
	created := make(chan session.Key, 1<<16)
	finished := make(chan struct{})
	for range 8 {
		go func() {
			defer func() { finished <- struct{}{} }()
			for {
				var key session.Key
				crand.Read(key[:])
				if s.Create(t.Context(), key, session.Record{Created: time.Now()}) != nil {
					return
				}
				created <- key
			}
		}()
	}
	time.Sleep(30 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		<-finished
	}
	close(created)
	s = openAt(t, path)
	for key := range created {
		if _, err := s.Load(t.Context(), key); err != nil {
			t.Errorf("Load: %v", err)
		}
	}
}
