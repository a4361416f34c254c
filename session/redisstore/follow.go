package redisstore

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

// never is before every proof.
const never = math.MinInt64 / 2

var errNowhere = errors.New("no server is known that has the session")

// Follow has f told of what others do to sessions.
func (s *Store) Follow(f session.Follower) { s.following.follower.Store(&f) }

// Trusted tells whether the server of the session's partition has proved itself
// lately.
func (s *Store) Trusted(key session.Key, now time.Time) bool {
	f := s.following
	return now.Sub(f.begun)-time.Duration(f.proven[s.layout.number(key)].Load()) <= f.patience
}

// Ahead is by how much this clock is ahead of the server's.
func (s *Store) Ahead() time.Duration { return s.following.clock.ahead() }

// following is how a store hears of changes: by which connection each partition
// is read, and when that was last heard.
type following struct {
	opts     *Options
	layout   layout
	link     *link
	patience time.Duration
	begun    time.Time // proofs are counted from it
	follower atomic.Pointer[session.Follower]
	clock    clock
	waiters  waiters
	proven   []atomic.Int64       // of each partition: when the last proof was sent
	masters  atomic.Pointer[view] // of a Cluster, as a node said last
	slots    []int                // of each partition

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex // guards what follows
	closed   bool
	nodes    map[string]*node
	owner    []*node         // of each partition: by which it is read
	since    []time.Duration // since when
	asked    []time.Duration // when some of it was last read elsewhere, and nothing is told of
	disputed []time.Duration // when another than the owner was said to be the owner
}

func newFollowing(o *Options, l layout, ln *link) *following {
	f := &following{
		opts: o, layout: l, link: ln, patience: o.Liveness + o.Grace, begun: time.Now(),
		clock: clock{log: o.Log}, waiters: waiters{of: map[string]map[chan struct{}]bool{}},
		proven: make([]atomic.Int64, l.partitions), nodes: map[string]*node{},
		owner: make([]*node, l.partitions), since: make([]time.Duration, l.partitions),
		asked: make([]time.Duration, l.partitions), disputed: make([]time.Duration, l.partitions),
	}
	for n := range f.proven {
		f.slots = append(f.slots, slot(strconv.Itoa(n)))
		f.proven[n].Store(never)
		f.asked[n], f.disputed[n] = never, never
	}
	f.ctx, f.stop = context.WithCancel(context.Background())
	if !o.Cluster && o.Sentinel.Master == "" {
		f.adopt(map[int]string{0: o.Addresses[0]})
		return f
	}
	f.running.Go(f.lookOut)
	return f
}

func (f *following) close() {
	f.stop()
	f.mu.Lock()
	f.closed = true
	for _, nd := range f.nodes {
		f.drop(nd)
	}
	f.mu.Unlock()
	f.running.Wait()
}

// beat is how often servers are asked for a proof.
func (f *following) beat() time.Duration { return max(f.opts.Liveness/4, time.Millisecond) }

func (f *following) now() time.Duration { return time.Since(f.begun) }

// lookOut finds out where partitions are when nobody knows, or their servers are
// silent.
func (f *following) lookOut() {
	tick := time.NewTicker(f.beat())
	defer tick.Stop()
	for {
		if f.opts.Sentinel.Master != "" || f.lost() {
			f.find(f.ctx)
		}
		f.settle()
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			return
		}
	}
}

// lost tells whether somebody else has to be asked for the owner of a partition.
func (f *following) lost() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, nd := range f.owner {
		if nd == nil || f.silent(nd) {
			return true
		}
	}
	return false
}

// silent tells whether a server has not answered for long.
func (f *following) silent(nd *node) bool {
	return f.now()-time.Duration(nd.answered.Load()) > f.opts.Liveness
}

// find asks who serves what.
func (f *following) find(ctx context.Context) error {
	client, err := f.link.get()
	if err != nil {
		return err
	}
	if f.opts.Cluster {
		return f.survey(ctx, client)
	}
	for addr := range client.Nodes() { // the one that Sentinels call the master
		f.adopt(map[int]string{0: addr})
	}
	return nil
}

// at returns the server of a partition.
func (f *following) at(ctx context.Context, n int) (*node, error) {
	f.mu.Lock()
	nd := f.owner[n]
	f.mu.Unlock()
	if nd != nil {
		return nd, nil
	}
	if err := f.find(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if nd = f.owner[n]; nd == nil {
		return nil, errNowhere
	}
	return nd, nil
}

// adopt has partitions read at other servers from now on. What was read at former
// ones is in doubt: they may not have been told of what happened since.
func (f *following) adopt(where map[int]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.move(where)
}

// move is adopt for those who hold f.mu.
func (f *following) move(where map[int]string) {
	if f.closed {
		return
	}
	changed := false
	for n, addr := range where {
		if nd := f.owner[n]; nd != nil && nd.addr == addr {
			continue
		}
		changed = true
		f.owner[n] = f.node(addr)
		f.since[n] = f.now()
	}
	if !changed {
		return
	}
	used := map[*node]bool{}
	for _, nd := range f.owner {
		used[nd] = true
	}
	for _, nd := range f.nodes {
		if !used[nd] {
			f.drop(nd)
		}
	}
	f.doubt()
}

// node returns a server that is asked for proofs from now on. f.mu is held.
func (f *following) node(addr string) *node {
	if nd := f.nodes[addr]; nd != nil {
		return nd
	}
	nd := newNode(f, addr)
	f.nodes[addr] = nd
	f.running.Go(nd.watch)
	return nd
}

// drop forgets a server. f.mu is held.
func (f *following) drop(nd *node) {
	delete(f.nodes, nd.addr)
	nd.gone()
	f.running.Go(nd.close)
}

// prove notes that a server was heard that was asked at a time: it has told of all
// that it had done until then to what was read there.
func (f *following) prove(nd *node, sent time.Duration, partitions ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range partitions {
		f.proved(nd, sent, n)
	}
}

// proved is prove for one partition. f.mu is held.
func (f *following) proved(nd *node, sent time.Duration, n int) {
	if f.owner[n] != nd || sent < f.since[n] || f.asked[n] != never || f.now()-f.disputed[n] <= f.opts.Liveness {
		return
	}
	if sent > time.Duration(f.proven[n].Load()) {
		f.proven[n].Store(int64(sent))
	}
}

// underWay notes that a partition is on its way to another server. What is there
// already can be read, but the change of it would not be told: rueidis' ASKING takes
// back the CLIENT CACHING before it.
func (f *following) underWay(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[n] = f.now()
	// Not never: streams are given time, as they are by a silent server.
	old := int64(f.now() - f.patience - 1)
	f.proven[n].Store(min(old, f.proven[n].Load()))
}

// settling is how many times the liveness nothing of a partition is read elsewhere
// until it counts as not on its way any more.
const settling = 10

// settle believes partitions again that arrived, or whose way was given up, of which
// no server tells.
func (f *following) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range f.asked {
		if at != never && f.now()-at > settling*f.opts.Liveness {
			f.doubt() // of what was read meanwhile nothing was told
			return
		}
	}
}

// hears tells whether changes of what was read lately are told.
func (f *following) hears(key session.Key) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[f.layout.number(key)] == never
}

// moved notes that a server says a partition is somewhere else.
func (f *following) moved(nd *node, n int, addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.owner[n] == nd {
		f.move(map[int]string{n: addr})
	}
}

// told is what a server says of keys that were read.
func (f *following) told(names []rueidis.RedisMessage) {
	for _, m := range names {
		name, err := m.ToString()
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(strings.TrimPrefix(name, f.layout.prefix), "}:")
		if id, ok := strings.CutPrefix(rest, "session:"); ok && len(id) == len(session.Key{}) {
			if to := f.follower.Load(); to != nil {
				(*to).Changed(session.Key([]byte(id)))
			}
			continue
		}
		f.waiters.wake(name)
	}
}

// inDoubt is doubt for those who do not hold f.mu.
func (f *following) inDoubt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.doubt()
}

// doubt tells that changes may have been missed. Nobody keeps anything then that
// was read where it is not told of. f.mu is held.
func (f *following) doubt() {
	if f.closed {
		return
	}
	for n := range f.asked {
		f.asked[n] = never
	}
	if to := f.follower.Load(); to != nil {
		(*to).Doubt()
	}
	f.waiters.wakeAll()
}
