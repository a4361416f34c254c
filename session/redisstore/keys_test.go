package redisstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/session"
)

// lives returns how long each key with a prefix lasts, on all of the servers.
func lives(t *testing.T, prefix string, servers ...*server) map[string]time.Duration {
	t.Helper()
	all := map[string]time.Duration{}
	for _, sv := range servers {
		c := sv.client(t)
		for cursor := uint64(0); ; {
			page, err := c.Do(t.Context(), c.B().Scan().Cursor(cursor).Match(prefix+"*").Count(1000).Build()).AsScanEntry()
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range page.Elements {
				ms, err := c.Do(t.Context(), c.B().Pttl().Key(key).Build()).ToInt64()
				if err != nil {
					t.Fatal(err)
				}
				all[strings.TrimPrefix(key, prefix)] = time.Duration(ms) * time.Millisecond
			}
			if cursor = page.Cursor; cursor == 0 {
				break
			}
		}
	}
	return all
}

// kind is a key's without its names.
func kind(key string) string {
	_, rest, _ := strings.Cut(key, "}:")
	kind, _, _ := strings.Cut(rest, ":")
	return kind
}

// where are the servers that tests of keys run against.
var where = map[string]func(*testing.T, string) (*Store, []*server){
	"one server": func(t *testing.T, prefix string) (*Store, []*server) {
		return openWith(t, Options{Addresses: []string{shared.addr()}, Prefix: prefix}), []*server{shared}
	},
	"a cluster": func(t *testing.T, prefix string) (*Store, []*server) { return openCluster(t, prefix), cluster },
}

func TestEveryKeyExpires(t *testing.T) {
	for name, open := range where {
		t.Run(name, func(t *testing.T) {
			prefix := rand.Text() + ":"
			s, servers := open(t, prefix)
			tags := []session.Tag{random[session.Tag](), random[session.Tag]()}
			rec := record(tags...)
			rec.Expires = time.Now().Add(8 * time.Hour)
			replaced := create(t, s, rec)
			ended := create(t, s, rec)
			short := record(tags...) // makes nothing shorter that a longer one is in
			short.Expires = time.Now().Add(time.Minute)
			create(t, s, short)
			_, endErr := s.End(t.Context(), ended, session.Logout, session.Condition{})
			_, leaseErr := s.Acquire(t.Context(), replaced, 15*time.Second)
			until := time.Now().Add(time.Minute)
			if err := errors.Join(endErr, leaseErr,
				s.Replace(t.Context(), replaced, 1, []byte("new")),
				s.Touch(t.Context(), []session.Touch{{Key: replaced, At: time.Now()}}),
				s.Once(t.Context(), replaced, until),
				s.Mark(t.Context(), tags[0], session.Mark{Reason: session.BackChannel, BeganBefore: time.Now(), Until: until}),
			); err != nil {
				t.Fatal(err)
			}
			if err := s.Create(t.Context(), random[session.Key](), rec); err == nil {
				t.Error("Create of a marked session: no error")
			}

			const all = 8*time.Hour + session.TombstoneGrace + sweepSlack
			const tolerance = 30 * time.Second
			want := map[string]time.Duration{
				"used": all, "created": all, "expires": all, "tag": all, "places": all,
				"mark": time.Minute, "once": time.Minute, "lease": 15 * time.Second,
			}
			seen := map[string]bool{}
			for key, life := range lives(t, prefix, servers...) {
				seen[kind(key)] = true
				want := want[kind(key)]
				if kind(key) == "session" {
					switch {
					case strings.HasSuffix(key, string(replaced[:])):
						want = all
					case strings.HasSuffix(key, string(ended[:])):
						want = all - sweepSlack
					default:
						want = time.Minute + session.TombstoneGrace + sweepSlack
					}
				}
				// In a cluster a set may have the short session only.
				least := want - tolerance
				if name == "a cluster" && want == all && kind(key) != "session" {
					least = time.Minute + session.TombstoneGrace + sweepSlack - tolerance
				}
				if life <= max(0, least) || life > want {
					t.Errorf("%q lasts %v, want %v", key, life, want)
				}
			}
			for _, kind := range []string{"session", "used", "created", "expires", "tag", "mark", "once", "lease"} {
				if !seen[kind] {
					t.Errorf("no key of %s", kind)
				}
			}
		})
	}
}

// What is over leaves nothing but tombstones, and those expire.
func TestSetsOfSessionsThatEnded(t *testing.T) {
	for name, open := range where {
		t.Run(name, func(t *testing.T) {
			prefix := rand.Text() + ":"
			s, servers := open(t, prefix)
			tag := random[session.Tag]()
			rec := record(tag, random[session.Tag]())
			idle := rec
			idle.Used = time.Now().Add(-time.Hour)
			for range 20 {
				if _, err := s.End(t.Context(), create(t, s, rec), session.Logout, session.Condition{}); err != nil {
					t.Fatal(err)
				}
				create(t, s, idle)
			}
			if _, err := s.Sweep(t.Context(), session.Limits{Now: time.Now(), Idle: 30 * time.Minute}); err != nil {
				t.Fatal(err)
			}
			create(t, s, rec)
			if _, err := s.EndTagged(t.Context(), tag, session.Revoked, session.Scope{}); err != nil {
				t.Fatal(err)
			}
			for key := range lives(t, prefix, servers...) {
				if kind(key) != "session" && kind(key) != "places" {
					t.Errorf("%q is left", key)
				}
			}
		})
	}
}

// Records expire with their sets still naming them only where nobody swept for a
// day. A tag whose sessions come and go does not keep their names for ever.
func TestNamesOfRecordsThatExpired(t *testing.T) {
	prefix := rand.Text() + ":"
	s := openWith(t, Options{Addresses: []string{shared.addr()}, Prefix: prefix})
	c := shared.client(t)
	tag := random[session.Tag]()
	forget := func(n int) {
		var keys []session.Key
		for range n {
			keys = append(keys, create(t, s, record(tag)))
		}
		for _, key := range keys {
			if err := c.Do(t.Context(), c.B().Del().Key(s.layout.of(key).session(key)).Build()).Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	size := func(set string) int64 {
		n, err := c.Do(t.Context(), c.B().Zcard().Key(set).Build()).ToInt64()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	p := s.layout.in(0)

	for range 500 {
		forget(1)
	}
	if n := size(p.tag(tag)); n > 100 {
		t.Errorf("a tag names %d sessions of 500 that expired", n)
	}
	forget(10)

	// A record that is not there while the sets of live sessions have it may be on its
	// way between two nodes: that is not known to be over.
	if _, err := s.Tagged(t.Context(), tag, session.Key{}, 10); err == nil || isAnswer(err) {
		t.Errorf("Tagged: error = %v, want one that says nothing about the session", err)
	}
	live := create(t, s, record(tag))
	endings, err := s.EndTagged(t.Context(), tag, session.Logout, session.Scope{})
	if err == nil || isAnswer(err) || len(endings) != 1 || endings[0].Key != live {
		t.Errorf("EndTagged = %v, %v, want %x and an error that says nothing about the others", endings, err, live)
	}

	late := create(t, s, record(tag))
	endings, err = s.Sweep(t.Context(), session.Limits{Now: time.Now(), Lifetime: time.Second})
	if err == nil || isAnswer(err) || len(endings) != 1 || endings[0].Key != late {
		t.Errorf("Sweep = %v, %v, want %x and an error that says nothing about the others", endings, err, late)
	}
	if size(p.used) == 0 {
		t.Error("Sweep took sessions for over whose records cannot have expired")
	}

	// They can have expired if their end was long ago.
	ids, err := c.Do(t.Context(), c.B().Zrange().Key(p.expires).Min("0").Max("-1").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	ago, _ := strconv.ParseFloat(score(time.Now().Add(-session.TombstoneGrace-sweepSlack)), 64)
	for _, id := range ids {
		if err := c.Do(t.Context(), c.B().Zadd().Key(p.expires).ScoreMember().ScoreMember(ago, id).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	// Nobody who comes before the sweep is held up by them: a login may have to know
	// how many sessions there are.
	other := random[session.Tag]()
	if err := c.Do(t.Context(), c.B().Zunionstore().Destination(p.tag(other)).Numkeys(1).Key(p.tag(tag)).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if listed, err := s.Tagged(t.Context(), other, session.Key{}, 10); err != nil || len(listed) != 0 {
		t.Errorf("Tagged before the sweep = %v, %v", listed, err)
	}
	if endings, err := s.EndTagged(t.Context(), tag, session.Logout, session.Scope{}); err != nil || len(endings) != 0 {
		t.Errorf("EndTagged before the sweep = %v, %v", endings, err)
	}
	if endings, err := s.Sweep(t.Context(), session.Limits{Now: time.Now(), Lifetime: time.Second}); err != nil || len(endings) != 0 {
		t.Errorf("Sweep = %v, %v", endings, err)
	}
	for _, set := range []string{p.used, p.created, p.expires} {
		if n := size(set); n != 0 {
			t.Errorf("%q names %d sessions", set, n)
		}
	}
	for _, tag := range []session.Tag{tag, other} {
		if listed, err := s.Tagged(t.Context(), tag, session.Key{}, 10); err != nil || len(listed) != 0 {
			t.Errorf("Tagged = %v, %v", listed, err)
		}
		if n := size(p.tag(tag)); n != 0 {
			t.Errorf("the tag names %d sessions", n)
		}
	}
}

// A record that a later version wrote is unknown to this one, and in nobody's way.
func TestRecordOfAnotherVersion(t *testing.T) {
	s := openAt(t, shared)
	c := shared.client(t)
	tag := random[session.Tag]()
	keys := []session.Key{create(t, s, record(tag)), create(t, s, record(tag)), create(t, s, record(tag))}
	strange := keys[1]
	name := s.layout.of(strange).session(strange)
	if err := c.Do(t.Context(), c.B().Setrange().Key(name).Offset(0).Value("X").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Load(t.Context(), strange)
	wantUnknown(t, "Load", err)
	wantUnknown(t, "Replace", s.Replace(t.Context(), strange, 1, nil))
	_, err = s.End(t.Context(), strange, session.Logout, session.Condition{})
	wantUnknown(t, "End", err)
	_, err = s.Tagged(t.Context(), tag, session.Key{}, 10)
	wantUnknown(t, "Tagged", err)
	endings, err := s.EndTagged(t.Context(), tag, session.Logout, session.Scope{})
	wantUnknown(t, "EndTagged", err)
	if len(endings) != 2 {
		t.Errorf("EndTagged = %v, want two", endings)
	}
	late := create(t, s, record())
	endings, err = s.Sweep(t.Context(), session.Limits{Now: time.Now(), Lifetime: time.Second})
	wantUnknown(t, "Sweep", err)
	if len(endings) != 1 || endings[0].Key != late {
		t.Errorf("Sweep = %v, want %x", endings, late)
	}
	if endings, err = s.Sweep(t.Context(), session.Limits{Now: time.Now(), Lifetime: time.Second}); err != nil {
		t.Errorf("a second Sweep = %v, %v", endings, err)
	}
}

// A session of whose use nothing is known was used when it was created: it is read
// while it is created, or the server threw the set away.
func TestUseThatNobodyKnows(t *testing.T) {
	s := openAt(t, shared)
	c := shared.client(t)
	rec := record()
	rec.Created = rec.Created.Add(-time.Minute)
	key := create(t, s, rec)
	if err := c.Do(t.Context(), c.B().Del().Key(s.layout.of(key).used).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(t.Context(), key); err != nil || !got.Used.Equal(rec.Created) {
		t.Errorf("Load = used %v, %v, want %v", got.Used, err, rec.Created)
	}
	if got, err := s.End(t.Context(), key, session.Logout, session.Condition{}); err != nil || !got.Used.Equal(rec.Created) {
		t.Errorf("End = used %v, %v, want %v", got.Used, err, rec.Created)
	}
}

// A replica whose clock is fast ends no session by it.
func TestClocksThatDiffer(t *testing.T) {
	s := openAt(t, shared)
	rec := record()
	rec.Used = time.Now()
	key := create(t, s, rec)
	idle := record()
	idle.Used = time.Now().Add(-45 * time.Minute)
	over := create(t, s, idle)
	endings, err := s.Sweep(t.Context(), session.Limits{Now: time.Now().Add(2 * time.Hour), Idle: 30 * time.Minute, Lifetime: time.Hour})
	if err != nil || len(endings) != 1 || endings[0].Key != over {
		t.Errorf("Sweep = %v, %v, want %x", endings, err, over)
	}
	if _, err := s.Load(t.Context(), key); err != nil {
		t.Errorf("Load: %v", err)
	}
	endings, err = s.Sweep(t.Context(), session.Limits{Now: time.Now().Add(-2 * time.Hour), Idle: time.Nanosecond, Lifetime: time.Nanosecond})
	if err != nil || len(endings) != 0 {
		t.Errorf("Sweep by a slow clock = %v, %v", endings, err)
	}
	if skew, err := s.ClockSkew(t.Context()); err != nil || skew.Abs() > time.Second {
		t.Errorf("ClockSkew = %v, %v", skew, err)
	}
}

func TestLayout(t *testing.T) {
	l := newLayout("p:", true)
	seen := map[int]bool{}
	last := -1
	for hi := range 256 {
		for lo := range 256 {
			n := l.number(session.Key{byte(hi), byte(lo)})
			if n < last || n >= l.partitions {
				t.Fatalf("the partition of %x%x is %d after %d", hi, lo, n, last)
			}
			seen[n], last = true, n
		}
	}
	if len(seen) != l.partitions {
		t.Errorf("%d partitions are used of %d", len(seen), l.partitions)
	}
	if n := newLayout("p:", false).number(session.Key(bytes.Repeat([]byte{0xff}, 32))); n != 0 {
		t.Errorf("without a cluster there is a partition %d", n)
	}
}

// countedConn counts how often something is sent.
type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// TestRoundTrips pins what each call costs: how often it waits for the server.
func TestRoundTrips(t *testing.T) {
	want := map[string]int64{
		"Create": 1, "Load": 1, "Replace": 1, "End": 1, "EndTagged": 1, "Mark": 1, "Tagged": 1, "Touch": 1,
		"Once": 1, "Once ran out": 1, "Acquire": 1, "Renew": 1, "Release": 1, "Sweep": 1, "Count": 1, "Ping": 1, "ClockSkew": 1,
	}
	var writes atomic.Int64
	s := openWith(t, Options{
		Addresses: []string{shared.addr()}, Prefix: rand.Text(), Timeout: patient,
		Liveness: time.Hour, // it asks for no proofs
		wrap:     func(conn net.Conn) net.Conn { return &countedConn{conn, &writes} },
	})
	for name := range want {
		most := int64(1 << 30)
		for range 5 { // the client asks for a sign of life now and then
			tag := random[session.Tag]()
			key := create(t, s, record(tag))
			before := writes.Load()
			if err := calls(s, key, tag)[name](t.Context()); err != nil && !isAnswer(err) {
				t.Fatalf("%s: %v", name, err)
			}
			most = min(most, writes.Load()-before)
		}
		if most != want[name] {
			t.Errorf("%s goes to the server %d times, want %d", name, most, want[name])
		}
	}
}

// TestCommandsInCluster pins what each call makes the nodes do.
func TestCommandsInCluster(t *testing.T) {
	s := openCluster(t, rand.Text())
	want := map[string]string{
		// Directories, then the record.
		"Create": "evalsha 4", "Load": "get 1 zscore 1", "Replace": "evalsha 1", "End": "evalsha 1",
		"EndTagged": "evalsha 1 smembers 1", "Mark": "evalsha 2 smembers 1", "Tagged": "evalsha 1 smembers 1",
		"Touch": "evalsha 1", "Once": "set 1", "Acquire": "evalsha 1", "Renew": "evalsha 1", "Release": "evalsha 1",
		"Count": fmt.Sprintf("zcard %d", clusterPartitions),
	}
	tags := []session.Tag{random[session.Tag](), random[session.Tag](), random[session.Tag]()}
	for name, want := range want {
		t.Run(name, func(t *testing.T) {
			var got string
			for range 30 { // some node may not know the script yet
				key := create(t, s, record(tags[:1]...))
				call := calls(s, key, tags[0])[name]
				switch name {
				case "Create":
					call = func(ctx context.Context) error { return s.Create(ctx, random[session.Key](), record(tags...)) }
				case "Mark": // those of that time only
					call = func(ctx context.Context) error {
						tag := random[session.Tag]()
						key = create(t, s, record(tag))
						reset(t)
						return calls(s, key, tag)["Mark"](ctx)
					}
				case "EndTagged", "Tagged":
					tag := random[session.Tag]()
					key = create(t, s, record(tag))
					call = calls(s, key, tag)[name]
				}
				reset(t)
				if err := call(t.Context()); err != nil && !isAnswer(err) {
					t.Fatal(err)
				}
				if got = commands(t); got == want {
					return
				}
			}
			t.Errorf("%s makes the nodes do %q, want %q", name, got, want)
		})
	}
}

func reset(t *testing.T) {
	for _, node := range cluster {
		node.must(t, "CONFIG", "RESETSTAT")
	}
}

// commands are what the nodes were sent since reset, but for what scripts do.
func commands(t *testing.T) string {
	total := map[string]int64{}
	inner := map[string]bool{}
	for _, node := range cluster {
		c := node.client(t)
		stats, err := c.Do(t.Context(), c.B().Info().Section("commandstats").Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(stats) {
			var calls int64
			name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":")
			if !ok {
				continue
			}
			fmt.Sscanf(rest, "calls=%d", &calls)
			total[name] += calls
			inner["evalsha"] = inner["evalsha"] || name == "evalsha"
		}
	}
	var all []string
	for name, n := range total {
		switch {
		case slices.Contains([]string{"evalsha", "eval", "smembers", "zcard"}, name),
			!inner["evalsha"] && slices.Contains([]string{"get", "set", "zscore", "zadd"}, name):
			all = append(all, fmt.Sprintf("%s %d", name, n))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
