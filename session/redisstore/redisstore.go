// Package redisstore keeps sessions in Redis or Valkey, for any number of
// processes: one server, one with Sentinels, or a Cluster. It needs Redis 6.2 or
// any Valkey.
//
// # Keys
//
// Sessions are spread over partitions by the first bits of their keys. All of a
// partition is in one slot of a Cluster, its name being the hash tag, so that
// what is promised of a session is kept by one command or one Lua script. Without
// a Cluster there is one partition. Keys and tags are raw bytes.
//
//	{0}:session:KEY  string: a live record or a tombstone (record.go)
//	{0}:used         sorted set: live sessions by last use, in microseconds
//	{0}:created      sorted set: live sessions by creation
//	{0}:expires      sorted set: live sessions by absolute end
//	{0}:tag:TAG      sorted set, all scores 0: live sessions that carry the tag,
//	                 and so in the order of their keys
//	{0}:mark:TAG     string: a mark
//	{0}:once:KEY     string: a claim
//	{0}:lease:KEY    string: a lease, by its token
//
// and, in a Cluster only, the directory of a tag, in a slot of its own:
//
//	{TAG}:places     set: partitions in which sessions carry the tag, or did, or
//	                 are about to
//	{TAG}:mark       string: a mark
//
// Every key expires. A live record does a day after its tombstone would: Sweep
// ended it long before, unless no process was there to sweep. The sets last as
// long as the longest of their members. Members leave with their session; those
// that a record which expired has left behind are removed when they are met, and
// each Create looks for some, so that no tag's set outgrows its live sessions for
// long.
//
// # In a Cluster
//
// What is about a tag takes several scripts, of one slot each. Any of them may be
// the last: the process dies, or the network. These orders keep the promises.
//
// Create first enters its partition into the directories of its tags, where a
// mark refuses it, then writes record and indexes by one script, which asks the
// marks of the partition. If it stops between the two, a directory names a
// partition in which there is nothing: that costs a look, and ends when the
// directory expires.
//
// Mark first marks the directory, then every partition that the directory names.
// A Create that entered the directory later is refused by the first mark. One
// that entered it earlier is refused in the partition, or was done there before
// the mark came; then an EndTagged after the mark finds it, since the directory
// names its partition. A Mark that stops half way has not returned nil, and what
// it did keeps no login from starting that began later.
//
// EndTagged, Tagged, Sweep and Count go through the partitions, one script each.
// A session never moves, so none is told of twice. Those that a broken off call
// did not reach are as they were.
//
// # Following
//
// Sessions are loaded by a connection of their own for each server that is a
// master, which remembers what was read there and tells when it changes (CLIENT
// TRACKING with OPTIN, RESP3). It is told before the answers to later questions on
// that connection. So a server that answers a question has told of all that it had
// done before: its answer is a proof, as old as the question. Every quarter of
// Liveness each server is asked for one, whether or not anybody else asks anything,
// and Trusted is whether the last of the session's partition is young enough.
// Nothing has to notice that a connection is silent.
//
// What was read is in doubt as soon as the server says the first word on another
// connection, as a partition is read at another server, and as a server was
// emptied. It is not when a connection is lost: until there is another nothing
// better is known, and Grace may let it be believed a little longer.
//
// The question of a proof is one that writes, though it deletes what is not there.
// So it is refused by a replica, and by a master that was cut off from its
// replicas, if min-replicas-to-write makes it want some. A Load asks it as well: at
// a server that would not write no session is found, and none is absent, since
// others may have another master by then.
//
// In a Cluster each master is asked in one go for a proof and for what it takes for
// its own (CLUSTER SLOTS): it proves that, and nothing that another master takes for
// its own or somebody else's. A session whose slot is on its way to another node
// may be read at the other one, where its change would not be told: ASKING and CLIENT
// CACHING exclude each other. Its partition is not trusted then until the slot has
// arrived.
//
// A process that waits for a lease reads it in the same way, and is woken when it
// is released.
//
// # Durability
//
// What a server has acknowledged, it may lose: in a crash, what its appendfsync had
// not written yet (with always nothing, with everysec the last second), and in a
// failover, what the replica that was promoted had not received. With WaitReplicas a
// write is done when so many replicas have received it (WAIT, on a connection that
// nobody else waits on): fewer is an error of the third kind, whatever the server
// itself answered. Leases, touches and what is only read do not wait.
//
// # Time
//
// How long something lasts is sent as a duration and counted by the server's
// clock alone: leases, claims, marks, and when a key expires. So clocks that
// differ between replicas make no claim end early and no lease have two holders.
//
// Moments are told by the server's clock: those of records, touches and limits are
// translated by how far this process' clock is ahead (Ahead), so that a process
// whose clock is wrong does no harm to the others. It is measured with each proof.
// Less than a second is taken for none, so that equal times stay equal, and more
// than five are logged. In a Cluster it is the clock of the node that has partition
// 0. BeganBefore is the provider's time and stays as it is. Sweep takes the earlier
// of its caller's clock and the server's: nobody's session ends by a clock that
// was set forward.
//
// # Unknown
//
// Whatever the server answers but what was asked for (LOADING, READONLY, NOAUTH,
// OOM, CLUSTERDOWN), and no answer at all, is an error of the third kind. A write
// is sent once. It is sent again only after an answer that says it was not done:
// MOVED, ASK and TRYAGAIN of a Cluster, NOSCRIPT. Reads are repeated once when
// their connection broke, and so is the giving back of a lease. A write that too few
// replicas have received may be done.
//
// When the server is out of memory only Create, Once and Import do not go through.
// Redis refuses but the first write of a script, and the others begin with one that
// takes none. A logout needs no room, a rotated token is not lost for want of it, and
// nobody who is there counts as idle.
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

// Store is a session.Store in Redis.
type Store struct {
	opts   Options
	layout layout

	// room bounds the calls that wait for the server.
	room chan struct{}
	link link
	// following reads what is told of when it changes.
	following *following

	// mu is held for reading by each call in progress; it guards closed.
	mu     sync.RWMutex
	closed bool
	// closing wakes those who wait for a lease.
	closing   chan struct{}
	closeOnce sync.Once
	// calls counts what was sent and is not answered, whether or not somebody still
	// waits for it.
	calls sync.WaitGroup
}

var _ session.Shared = (*Store)(nil)

// Open returns a store in the Redis that the options name. It does not wait for
// the server: until it is there, every call says that it could not be reached.
func Open(o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("redisstore: %w", err)
	}
	s := &Store{
		opts:    o,
		layout:  newLayout(o.Prefix, o.Cluster),
		room:    make(chan struct{}, maxCalls),
		closing: make(chan struct{}),
	}
	s.link.options = o.client()
	s.following = newFollowing(&s.opts, s.layout, &s.link)
	return s, nil
}

// Count returns how many live sessions there are.
func (s *Store) Count(ctx context.Context) (int, error) {
	cmds := make([]command, s.layout.partitions)
	for n := range cmds {
		used := s.layout.in(n).used
		cmds[n] = func(b rueidis.Builder, _ bool) rueidis.Completed { return b.Zcard().Key(used).Build() }
	}
	answers, err := s.read(ctx, "count", cmds)
	if err != nil {
		return 0, err
	}
	var n int64
	for _, a := range answers {
		part, err := a.ToInt64()
		if err != nil {
			return 0, unknown("count", err)
		}
		n += part
	}
	return int(n), nil
}

// Ping tells whether the store can be reached, and would write: a replica does not,
// nor does a master that was cut off from its replicas. Of a Cluster it tells
// whether all of it can be reached.
func (s *Store) Ping(ctx context.Context) error {
	if !s.opts.Cluster {
		probe := s.layout.in(0).base + "probe"
		return s.tell(ctx, "ping", func(b rueidis.Builder, _ bool) rueidis.Completed { return b.Del().Key(probe).Build() })
	}
	return s.reach(ctx)
}

// reach tells whether the store can be reached.
func (s *Store) reach(ctx context.Context) error {
	if !s.opts.Cluster {
		return s.tell(ctx, "ping", func(b rueidis.Builder, _ bool) rueidis.Completed { return b.Ping().Build() })
	}
	answers, err := s.read(ctx, "ping", []command{
		func(b rueidis.Builder, _ bool) rueidis.Completed { return b.ClusterInfo().Build() },
	})
	if err != nil {
		return err
	}
	info, err := answers[0].ToString()
	if err != nil {
		return unknown("ping", err)
	}
	if !strings.Contains(info, "cluster_state:ok") {
		return unknown("ping", errors.New("the cluster is not whole"))
	}
	return nil
}

// Close waits for calls in progress and closes the connections. Those who wait
// for a lease are sent away.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.calls.Wait()
		s.following.close()
		s.link.close()
	})
	return nil
}
