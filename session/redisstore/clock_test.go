package redisstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"sessiongate/session"
)

// at is a clock that differs from that of the server, which is ours.
func at(by time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(by) }
}

// openBy is a process whose clock differs.
func openBy(t *testing.T, by time.Duration, prefix string) *Store {
	t.Helper()
	return openWith(t, Options{Addresses: []string{shared.addr()}, Prefix: prefix, clock: at(by)})
}

func wantNear(t *testing.T, what string, got, want time.Time) {
	t.Helper()
	if d := got.Sub(want).Abs(); d > drift {
		t.Errorf("%s is %v off", what, d)
	}
}

// A process whose clock is wrong tells and is told of sessions by the server's.
func TestProcessWithAnotherClock(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{10 * time.Minute, -10 * time.Minute, 90 * time.Second, 300 * time.Millisecond} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			right := openAt(t, shared)
			wrong := openBy(t, by, right.opts.Prefix)
			off := by
			if by.Abs() < alike {
				off = 0
			}
			tag := random[session.Tag]()
			rec := record(tag)
			key := create(t, right, rec)
			got, err := wrong.Load(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			if ahead := wrong.Ahead(); (ahead-off).Abs() > drift || off == 0 && ahead != 0 {
				t.Errorf("Ahead = %v, want %v", ahead, off)
			}
			listed, err := wrong.Tagged(t.Context(), tag, session.Key{}, 10)
			if err != nil || len(listed) != 1 {
				t.Fatalf("Tagged = %v, %v", listed, err)
			}
			for how, got := range map[string]session.Record{"Load": got, "Tagged": listed[0].Record} {
				wantNear(t, how+": Began", got.Began, rec.Began.Add(off))
				wantNear(t, how+": Created", got.Created, rec.Created.Add(off))
				wantNear(t, how+": Used", got.Used, rec.Used.Add(off))
				wantNear(t, how+": Expires", got.Expires, rec.Expires.Add(off))
			}

			// It is used here, and the others see when.
			if err := wrong.Touch(t.Context(), []session.Touch{{Key: key, At: time.Now().Add(by)}}); err != nil {
				t.Fatal(err)
			}
			if got, err = right.Load(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			wantNear(t, "Used", got.Used, time.Now().Add(by-off))
			if got, err = wrong.Load(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			if _, err := wrong.End(t.Context(), key, session.IdleTimeout, session.Condition{UnusedSince: got.Used.Add(-2 * drift)}); !errors.Is(err, session.ErrConflict) {
				t.Errorf("End of a session that was used: error = %v, want %v", err, session.ErrConflict)
			}
			ended, err := wrong.End(t.Context(), key, session.IdleTimeout, session.Condition{UnusedSince: got.Used})
			if err != nil {
				t.Errorf("End of a session that was not used since: %v", err)
			}
			wantNear(t, "End: Created", ended.Created, rec.Created.Add(off))
		})
	}
}

// What a process with a wrong clock wrote is right for the others, and lasts as
// long as it said.
func TestProcessWithAnotherClockWrites(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			right := openAt(t, shared)
			wrong := openBy(t, by, right.opts.Prefix)
			now := time.Now().Add(by)
			tag := random[session.Tag]()
			rec := session.Record{
				Began: now.Add(-2 * time.Minute), Created: now.Add(-time.Minute), Used: now.Add(-time.Minute),
				Expires: now.Add(time.Hour), Tags: []session.Tag{tag},
			}
			key := create(t, wrong, rec)
			got, err := right.Load(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			wantNear(t, "Created", got.Created, time.Now().Add(-time.Minute))
			wantNear(t, "Used", got.Used, time.Now().Add(-time.Minute))
			wantNear(t, "Began", got.Began, time.Now().Add(-2*time.Minute))
			wantNear(t, "Expires", got.Expires, time.Now().Add(time.Hour))

			once, marked := random[session.Key](), random[session.Tag]()
			_, leaseErr := wrong.Acquire(t.Context(), key, time.Hour)
			if err := errors.Join(leaseErr,
				wrong.Once(t.Context(), once, now.Add(time.Hour)),
				wrong.Mark(t.Context(), marked, session.Mark{Reason: session.BackChannel, Until: now.Add(time.Hour)}),
			); err != nil {
				t.Fatal(err)
			}
			for name, life := range lives(t, wrong.opts.Prefix, shared) {
				want := time.Hour
				switch kind(name) {
				case "session", "used", "created", "expires", "tag":
					want = time.Hour + session.TombstoneGrace + sweepSlack
				}
				if (life - want).Abs() > time.Minute {
					t.Errorf("%q lasts %v, want %v", name, life, want)
				}
			}

			// The provider's clock is neither's: what it says is not told by another.
			for _, row := range []struct {
				before time.Time
				ends   int
			}{{time.Now().Add(-3 * time.Minute), 0}, {time.Now().Add(-time.Minute), 1}} {
				endings, err := right.EndTagged(t.Context(), tag, session.BackChannel, session.Scope{BeganBefore: row.before})
				if err != nil || len(endings) != row.ends {
					t.Errorf("EndTagged of what began before %v = %v, %v, want %d", time.Until(row.before), endings, err, row.ends)
				}
			}
		})
	}
}

// A process with a wrong clock sweeps what is over, and nothing else.
func TestProcessWithAnotherClockSweeps(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			right := openAt(t, shared)
			wrong := openBy(t, by, right.opts.Prefix)
			over, live := record(), record()
			over.Used, live.Used = time.Now().Add(-31*time.Minute), time.Now().Add(-29*time.Minute)
			want := create(t, right, over)
			create(t, right, live)
			endings, err := wrong.Sweep(t.Context(), session.Limits{Now: time.Now().Add(by), Idle: 30 * time.Minute})
			if err != nil || len(endings) != 1 || endings[0].Key != want {
				t.Errorf("Sweep = %v, %v, want %x", endings, err, want)
			}
		})
	}
}

// lines keeps what is logged.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) events(t *testing.T) map[string]int {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]int{}
	for d := json.NewDecoder(bytes.NewReader(l.b.Bytes())); d.More(); {
		var line struct{ Event string }
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		all[line.Event]++
	}
	return all
}

func TestClockThatIsWrongIsLogged(t *testing.T) {
	for _, row := range []struct {
		by   time.Duration
		want int
	}{{6 * time.Second, 1}, {-6 * time.Second, 1}, {4 * time.Second, 0}} {
		t.Run(fmt.Sprint(row.by), func(t *testing.T) {
			var log lines
			s := openWith(t, Options{
				Addresses: []string{shared.addr()}, Liveness: 20 * time.Millisecond,
				Log: slog.New(slog.NewJSONHandler(&log, nil)), clock: at(row.by),
			})
			proven := func() int64 { return s.following.proven[0].Load() }
			for range 5 { // it is measured more than once
				last := proven()
				eventually(t, "proof", func() error {
					if proven() == last {
						return errors.New("none")
					}
					return nil
				})
			}
			if got := log.events(t)["clock_skew"]; got != row.want {
				t.Errorf("%d warnings, want %d", got, row.want)
			}
		})
	}
}

// Times that are told twice are told the same, however the measurements vary.
func TestClockIsSteady(t *testing.T) {
	c := clock{log: slog.New(slog.DiscardHandler)}
	for _, row := range []struct {
		name           string
		measured, took time.Duration
		want           time.Duration
	}{
		{"a first measurement that took long is better than none", 20 * time.Second, 3 * time.Second, 20 * time.Second},
		{"a later one is not", 30 * time.Second, 3 * time.Second, 20 * time.Second},
		{"what a network makes of it is passed over", 20*time.Second + 400*time.Millisecond, 0, 20 * time.Second},
		{"a clock that was set is not", 1300 * time.Millisecond, 0, 1300 * time.Millisecond},
		{"a clock that is nearly right is as it was", 900 * time.Millisecond, 0, 1300 * time.Millisecond},
		{"a clock that is right is right", 700 * time.Millisecond, 0, 0},
		{"one that is nearly wrong, too", 999 * time.Millisecond, 0, 0},
		{"one that is slow is behind", -3 * time.Second, 0, -3 * time.Second},
	} {
		c.set(row.measured, row.took)
		if got := c.ahead(); got != row.want {
			t.Errorf("%s: ahead = %v, want %v", row.name, got, row.want)
		}
	}
}
