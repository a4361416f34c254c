package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

// A Create is two steps in a cluster. Whatever comes between them, a session that
// a logout was about does not start unseen.
func TestCreateThatIsHeldUp(t *testing.T) {
	for _, row := range []struct {
		name    string
		between func(t *testing.T, s *Store, tag session.Tag)
		barred  bool
	}{
		{"nothing between", func(*testing.T, *Store, session.Tag) {}, false},
		{"a mark between", func(t *testing.T, s *Store, tag session.Tag) {
			if err := s.Mark(t.Context(), tag, session.Mark{Reason: session.BackChannel, BeganBefore: time.Now(), Until: time.Now().Add(time.Hour)}); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"an end of all that carry the tag, which saw nothing", func(t *testing.T, s *Store, tag session.Tag) {
			if endings, err := s.EndTagged(t.Context(), tag, session.Logout, session.Scope{}); err != nil || len(endings) > 0 {
				t.Fatalf("EndTagged = %v, %v", endings, err)
			}
		}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := openCluster(t, rand.Text())
			tag := random[session.Tag]()
			key, rec := random[session.Key](), record(random[session.Tag](), tag)
			ttl := millis(time.Hour)
			if err := s.announce(t.Context(), key, rec, ttl); err != nil {
				t.Fatal(err)
			}
			row.between(t, s, tag)
			err := s.add(t.Context(), key, rec, ttl)
			var end *session.Ended
			if row.barred && (!errors.As(err, &end) || end.Reason != session.BackChannel) || !row.barred && err != nil {
				t.Errorf("Create: %v, want barred: %t", err, row.barred)
			}
			endings, err := s.EndTagged(t.Context(), tag, session.Revoked, session.Scope{})
			if want := map[bool]int{false: 1}[row.barred]; err != nil || len(endings) != want {
				t.Errorf("EndTagged = %v, %v, want %d", endings, err, want)
			}
		})
	}
}

// A Create that died between its steps leaves nothing that others take for a
// session.
func TestCreateThatDied(t *testing.T) {
	s := openCluster(t, rand.Text())
	tag := random[session.Tag]()
	key, rec := random[session.Key](), record(tag)
	if err := s.announce(t.Context(), key, rec, millis(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), key); err != session.ErrAbsent {
		t.Errorf("Load: %v", err)
	}
	if listed, err := s.Tagged(t.Context(), tag, session.Key{}, 10); err != nil || len(listed) > 0 {
		t.Errorf("Tagged = %v, %v", listed, err)
	}
	if n, err := s.Count(t.Context()); err != nil || n != 0 {
		t.Errorf("Count = %d, %v", n, err)
	}
	if err := s.Create(t.Context(), key, rec); err != nil {
		t.Errorf("Create: %v", err)
	}
}

// A process that stood still between the steps of a Create for longer than a mark
// lasts does not go on.
func TestCreateThatStoodStill(t *testing.T) {
	s := openCluster(t, rand.Text())
	ctx, cancel := s.bounded(t.Context())
	defer cancel()
	deadline, ok := ctx.Deadline()
	if !ok || time.Until(deadline) > 2*s.opts.Timeout {
		t.Errorf("the steps of a Create may last until %v", deadline)
	}
}

// mover moves slots between the nodes of a cluster.
type mover struct {
	t     *testing.T
	nodes []*server
	ids   []string
	to    []rueidis.Client
	moved func() // called after each few keys
}

func newMover(t *testing.T, nodes []*server) *mover {
	m := &mover{t: t, nodes: nodes, moved: func() {}}
	for _, node := range nodes {
		c := node.client(t)
		id, err := c.Do(t.Context(), c.B().ClusterMyid().Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		m.ids, m.to = append(m.ids, id), append(m.to, c)
	}
	return m
}

// owner is the node that has a slot.
func (m *mover) owner(slot int64) int {
	m.t.Helper()
	slots, err := m.to[0].Do(m.t.Context(), m.to[0].B().ClusterSlots().Build()).ToArray()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, s := range slots {
		parts, _ := s.ToArray()
		first, _ := parts[0].ToInt64()
		last, _ := parts[1].ToInt64()
		node, _ := parts[2].ToArray()
		id, _ := node[2].ToString()
		if first <= slot && slot <= last {
			for i := range m.ids {
				if m.ids[i] == id {
					return i
				}
			}
		}
	}
	m.t.Fatalf("nobody has slot %d", slot)
	return 0
}

func (m *mover) do(node int, words ...string) rueidis.RedisResult {
	m.t.Helper()
	c := m.to[node]
	r := c.Do(m.t.Context(), c.B().Arbitrary(words...).Build())
	if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
		m.t.Fatalf("%s: %v", words[:2], err)
	}
	return r
}

// move moves a slot to the next node, a few keys at a time with a pause between,
// so that others meet it half way.
func (m *mover) move(slot int64, each time.Duration) {
	m.t.Helper()
	from := m.owner(slot)
	to := (from + 1) % len(m.nodes)
	m.begin(slot, from, to, each)
	m.finish(slot, from, to)
}

// begin moves all keys of a slot, and leaves it on its way.
func (m *mover) begin(slot int64, from, to int, each time.Duration) {
	m.t.Helper()
	n := fmt.Sprint(slot)
	m.do(to, "CLUSTER", "SETSLOT", n, "IMPORTING", m.ids[from])
	m.do(from, "CLUSTER", "SETSLOT", n, "MIGRATING", m.ids[to])
	for {
		keys, err := m.do(from, "CLUSTER", "GETKEYSINSLOT", n, "3").AsStrSlice()
		if err != nil {
			m.t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		m.do(from, append([]string{"MIGRATE", "127.0.0.1", m.nodes[to].port, "", "0", "5000", "KEYS"}, keys...)...)
		m.moved()
		time.Sleep(each)
	}
}

func (m *mover) finish(slot int64, from, to int) {
	m.t.Helper()
	n := fmt.Sprint(slot)
	m.do(to, "CLUSTER", "SETSLOT", n, "NODE", m.ids[to])
	m.do(from, "CLUSTER", "SETSLOT", n, "NODE", m.ids[to])
}

// While slots are moved, calls may fail, but nothing that was acknowledged is
// undone, nothing that failed was half done for good, and nothing lives that an
// EndTagged said nothing of.
func TestSlotsThatMove(t *testing.T) {
	t.Parallel()
	nodes, err := launchCluster(t.TempDir())
	for _, node := range nodes {
		t.Cleanup(node.kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	prefix := rand.Text() + ":"
	s := openWith(t, Options{Addresses: []string{nodes[0].addr()}, Cluster: true, Prefix: prefix})
	m := newMover(t, nodes)
	number := 7
	slot, err := m.do(0, "CLUSTER", "KEYSLOT", s.layout.in(number).used).ToInt64()
	if err != nil {
		t.Fatal(err)
	}
	// All sessions are in the partition that moves.
	inPartition := func() session.Key {
		for {
			if key := random[session.Key](); s.layout.number(key) == number {
				return key
			}
		}
	}
	group := random[session.Tag]()
	stay := map[session.Key]bool{}
	for range 50 {
		key := inPartition()
		stay[key] = true
		if err := s.Create(t.Context(), key, record(group)); err != nil {
			t.Fatal(err)
		}
	}

	idle := map[session.Key]bool{}
	tired := record()
	tired.Used = time.Now().Add(-time.Hour)
	for range 150 {
		key := inPartition()
		idle[key] = true
		if err := s.Create(t.Context(), key, tired); err != nil {
			t.Fatal(err)
		}
	}

	var over atomic.Bool
	var wg sync.WaitGroup
	sweep := func() error {
		endings, err := s.Sweep(t.Context(), session.Limits{Now: time.Now(), Idle: 30 * time.Minute})
		for _, e := range endings {
			if !idle[e.Key] {
				t.Errorf("%x is swept twice, or should not be", e.Key[:4])
			}
			delete(idle, e.Key)
		}
		return err
	}
	halfway, batches := make(chan struct{}), 0
	m.moved = func() {
		if batches++; batches == 20 {
			close(halfway)
		}
	}
	wg.Go(func() {
		for <-halfway; !over.Load(); {
			if err := sweep(); isAnswer(err) {
				t.Errorf("Sweep: %v", err)
			}
		}
	})
	var done, refused atomic.Int64
	for range 6 {
		wg.Go(func() {
			for !over.Load() {
				if tryLife(t, s, inPartition()) {
					done.Add(1)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	for range 3 {
		m.move(slot, 2*time.Millisecond)
		time.Sleep(20 * time.Millisecond)
	}
	over.Store(true)
	wg.Wait()
	t.Logf("%d sessions lived and ended, %d met a call that failed", done.Load(), refused.Load())
	// What a node refuses because it is moving a slot is sent again, mostly with success.
	if refused.Load() > done.Load() {
		t.Errorf("%d sessions could live while slots were moved, %d not", done.Load(), refused.Load())
	}
	if err := sweep(); err != nil || len(idle) > 0 {
		t.Errorf("Sweep: %v, and %d sessions that are over were never told of", err, len(idle))
	}
	listed, err := s.Tagged(t.Context(), group, session.Key{}, 1000)
	if err != nil || len(listed) != len(stay) {
		t.Errorf("Tagged = %d sessions, %v, want %d", len(listed), err, len(stay))
	}
	endings, err := s.EndTagged(t.Context(), group, session.Revoked, session.Scope{})
	if err != nil || len(endings) != len(stay) {
		t.Errorf("EndTagged = %d sessions, %v, want %d", len(endings), err, len(stay))
	}
}

// tryLife creates a session, refreshes it and ends it by its tag. Where a call
// fails it finds out what is so, and tells false.
func tryLife(t *testing.T, s *Store, key session.Key) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	tag := random[session.Tag]()
	rec := record(tag)
	if err := s.Create(ctx, key, rec); err != nil {
		if isAnswer(err) {
			t.Errorf("Create: %v", err)
		}
		return false
	}
	whole := true
	if _, err := s.Load(ctx, key); err != nil {
		if isAnswer(err) {
			t.Errorf("Load of a session that lives: %v", err)
		}
		whole = false
	}
	if err := s.Replace(ctx, key, 1, []byte("new")); err != nil {
		if isAnswer(err) {
			t.Errorf("Replace of a session that lives: %v", err)
		}
		whole = false
	}
	for {
		endings, err := s.EndTagged(ctx, tag, session.BackChannel, session.Scope{})
		if err == nil {
			if whole && len(endings) != 1 {
				t.Errorf("EndTagged tells of %d sessions, want 1", len(endings))
			}
			break
		}
		whole = false
		if ctx.Err() != nil {
			t.Errorf("EndTagged: %v", err)
			return false
		}
	}
	// What EndTagged said is done is done.
	for {
		_, err := s.Load(ctx, key)
		var end *session.Ended
		if errors.As(err, &end) {
			return whole
		}
		if err == nil || isAnswer(err) || ctx.Err() != nil {
			t.Errorf("Load after EndTagged: %v", err)
			return false
		}
		whole = false
	}
}

// A cluster of which a part is gone is not reachable, and says nothing of the
// sessions there.
func TestClusterWithAHole(t *testing.T) {
	t.Parallel()
	nodes, err := launchCluster(t.TempDir(), "--cluster-node-timeout", "2000")
	for _, node := range nodes {
		t.Cleanup(node.kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	var o Options
	for _, node := range nodes {
		o.Addresses = append(o.Addresses, node.addr())
	}
	o.Cluster, o.Timeout = true, time.Second
	s := openWith(t, o)
	tag := random[session.Tag]()
	var keys []session.Key
	for range 60 {
		keys = append(keys, create(t, s, record(tag)))
	}
	nodes[2].kill()
	found, unknown := 0, 0
	for _, key := range keys {
		switch _, err := s.Load(t.Context(), key); {
		case err == nil:
			found++
		case isAnswer(err):
			t.Errorf("Load: %v", err)
		default:
			unknown++
		}
	}
	if found == 0 || unknown == 0 {
		t.Errorf("%d sessions are found and %d unknown, want some of each", found, unknown)
	}
	endings, err := s.EndTagged(t.Context(), tag, session.Revoked, session.Scope{})
	if err == nil || isAnswer(err) {
		t.Errorf("EndTagged: error = %v, want one that says nothing about the others", err)
	}
	told := map[session.Key]bool{}
	for _, e := range endings {
		told[e.Key] = true
	}
	for _, key := range keys {
		var end *session.Ended
		_, err := s.Load(t.Context(), key)
		switch known := err == nil || isAnswer(err); {
		case !known: // by now the others may refuse, too
		case errors.As(err, &end) != told[key]:
			t.Errorf("Load: %v, and EndTagged told of it: %t", err, told[key])
		}
	}
	eventually(t, "Ping", func() error {
		if err := s.Ping(t.Context()); err != nil && strings.Contains(err.Error(), "not whole") {
			return nil
		} else {
			return fmt.Errorf("error = %w, want that the cluster is not whole", err)
		}
	})
}

// Without Cluster set, a node of one tells what is wrong.
func TestNodeOfACluster(t *testing.T) {
	s := openAt(t, cluster[0])
	hints := 0
	for range 20 {
		if _, err := s.Load(t.Context(), random[session.Key]()); err != nil && err != session.ErrAbsent {
			wantUnknown(t, "Load", err)
			if strings.Contains(err.Error(), "part of a Cluster") {
				hints++
			}
		}
	}
	other := openWith(t, Options{Addresses: []string{cluster[1].addr()}})
	if _, err := other.Load(t.Context(), random[session.Key]()); err != nil && strings.Contains(err.Error(), "part of a Cluster") {
		hints++
	}
	if hints == 0 {
		t.Error("nothing tells that the server is part of a cluster")
	}
}

// The sessions of an app may be in all partitions. Asked for all at once, the nodes
// answer after the time-out, and nobody knows who ended.
func TestPartitionsAreWalkedAFewAtATime(t *testing.T) {
	t.Parallel()
	s := openCluster(t, rand.Text()+":")
	idle := newScript("return {'done', '', 0}")
	var all []int
	for n := range s.layout.partitions {
		all = append(all, n)
	}
	asked, answered, most := 0, 0, 0
	_, err := s.walk(t.Context(), "test", all, func(n int, _ string) command {
		asked++
		most = max(most, asked-answered)
		return idle.call([]string{s.layout.in(n).used})
	}, func([]rueidis.RedisMessage) ([]session.Ending, error) {
		answered++
		return nil, nil
	})
	if err != nil || asked != len(all) || answered != len(all) || most != atOnce {
		t.Errorf("asked %d, %d at a time, answered %d, of %d: %v", asked, most, answered, len(all), err)
	}
}
