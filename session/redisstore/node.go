package redisstore

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// node is a server by whose one connection partitions are read, their changes told
// and proofs asked for.
type node struct {
	f        *following
	addr     string
	ctx      context.Context // ends when nothing is read there any more
	gone     context.CancelFunc
	conn     atomic.Pointer[heardConn]
	answered atomic.Int64 // when it was last asked with success, since f.begun
	turn     int          // of its partitions, whose is next to be written to

	once   sync.Once // makes what follows
	client rueidis.Client
	err    error
}

func newNode(f *following, addr string) *node {
	nd := &node{f: f, addr: addr}
	nd.answered.Store(int64(f.now())) // it has its time
	nd.ctx, nd.gone = context.WithCancel(f.ctx)
	return nd
}

// options are those of a client that keeps one connection, and notices soon when
// nothing is heard on it.
func (nd *node) options() rueidis.ClientOption {
	o := nd.f.opts
	c := o.client()
	c.InitAddress, c.ForceSingleClient, c.Sentinel = []string{nd.addr}, true, rueidis.SentinelOption{}
	c.DisableCache, c.PipelineMultiplex, c.BlockingPipeline = false, -1, -1
	c.Dialer = net.Dialer{Timeout: nd.f.patient(), KeepAlive: nd.f.beat()}
	c.ConnWriteTimeout = o.Liveness
	c.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := o.dial(ctx, addr, d, config)
		if err != nil {
			return nil, err
		}
		heard := &heardConn{Conn: conn, heard: nd.f.inDoubt}
		nd.conn.Store(heard)
		return heard, nil
	}
	c.OnInvalidations = func(names []rueidis.RedisMessage) {
		if names != nil {
			nd.f.told(names)
		} else if !nd.conn.Load().closed.Load() {
			nd.f.inDoubt() // the server was emptied
		}
	}
	return c
}

// patient is how long a connection may take to be made. It is short, so that the
// next attempt comes soon after the server does.
func (f *following) patient() time.Duration {
	return min(max(f.opts.Liveness, 500*time.Millisecond), f.opts.Timeout)
}

// get returns the client, which finds its way back by itself.
func (nd *node) get() (rueidis.Client, error) {
	nd.once.Do(func() {
		if nd.client, nd.err = rueidis.NewClient(nd.options()); nd.client != nil {
			nd.err = nil // it tries again with the next command
		}
	})
	return nd.client, nd.err
}

func (nd *node) close() {
	nd.once.Do(func() { nd.err = errClosed })
	if nd.client != nil {
		nd.client.Close()
	}
}

// ask sends commands in one go, on the one connection.
func (nd *node) ask(ctx context.Context, cmds []command) ([]rueidis.RedisResult, error) {
	client, err := nd.get()
	if err != nil {
		return nil, err
	}
	built := make(rueidis.Commands, len(cmds))
	for i, cmd := range cmds {
		built[i] = cmd(client.B(), false)
	}
	return client.DoMulti(ctx, built...), nil
}

// watch asks for proofs until the node is dropped.
func (nd *node) watch() {
	tick := time.NewTicker(nd.f.beat())
	defer tick.Stop()
	for {
		nd.probe()
		select {
		case <-tick.C:
		case <-nd.ctx.Done():
			return
		}
	}
}

// probe asks for a proof: that the server would write, and so is a master that has
// its replicas, if it is set up to want some. What it would write is nothing, for
// which it needs neither memory nor disk.
func (nd *node) probe() {
	ctx, cancel := context.WithTimeout(nd.ctx, max(nd.f.patient(), nd.f.opts.Liveness))
	defer cancel()
	own := nd.f.partitionsOf(nd)
	cmds := []command{func(b rueidis.Builder, _ bool) rueidis.Completed { return b.Time().Build() }}
	if len(own) > 0 {
		nd.turn = (nd.turn + 1) % len(own)
		name := nd.f.layout.in(own[nd.turn]).base + "probe"
		cmds = append(cmds, func(b rueidis.Builder, _ bool) rueidis.Completed { return b.Del().Key(name).Build() })
	}
	if nd.f.opts.Cluster {
		cmds = append(cmds, clusterSlots)
	}
	sent, asked := nd.f.now(), nd.f.opts.now()
	answers, err := nd.ask(ctx, cmds)
	if err != nil || answers[0].Error() != nil || len(own) == 0 {
		return
	}
	nd.answered.Store(int64(sent))
	nd.f.clock.measure(asked, nd.f.opts.now(), answers[0], own[0] == 0)
	_, refused := answers[1].ToInt64()
	if nd.f.opts.Cluster {
		nd.f.says(nd, answers[2], sent, refused == nil)
	} else if refused == nil {
		nd.f.prove(nd, sent, own...)
	}
}

// partitionsOf are those that are read at a node.
func (f *following) partitionsOf(nd *node) []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var own []int
	for n, other := range f.owner {
		if other == nd {
			own = append(own, n)
		}
	}
	return own
}

// heardConn is a connection whose changes are told. Before the first word of the
// server is read, whatever was read on former connections is in doubt. That is not
// so when a connection is lost: until the next there is nothing that is known better.
type heardConn struct {
	net.Conn
	first  sync.Once
	heard  func()
	closed atomic.Bool
}

func (c *heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.first.Do(c.heard)
	}
	return n, err
}

func (c *heardConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}
