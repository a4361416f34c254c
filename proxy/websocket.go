package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"sessiongate/session"
)

// streamGrace is how long a peer may take to what is left to do when a stream
// ends: to read what is under way, to answer a close frame.
const streamGrace = 500 * time.Millisecond

// tunnel is a WebSocket between a browser and an upstream. ReverseProxy copies
// between the two sides; what it writes passes through two halves, which know
// where a close frame can be put in.
//
// While it ends, ReverseProxy is held: it would close both sides as soon as it
// saw one of them end.
type tunnel struct {
	toBrowser, toUpstream half

	upstream io.ReadCloser   // what the upstream says: the body of its answer
	shutdown context.Context // of the gateway
	ended    atomic.Bool
	done     chan struct{} // closed after both sides have been closed
}

// dialled returns the request with a note of the connection that it goes out by,
// which is not to be had from its answer.
func (x *exchange) dialled(r *http.Request) *http.Request {
	return r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) { x.upstream = c.Conn },
	}))
}

// openTunnel makes a tunnel of an upstream's answer.
func (x *exchange) openTunnel(res *http.Response) error {
	if x.upstream == nil {
		return errors.New("switches protocols on no connection of ours")
	}
	t := newTunnel(res.Body, x.gateway.streams)
	t.toUpstream.connect(x.upstream)
	t.toUpstream.begin()
	if err := x.open(x.meters.webSocket, t.end); err != nil {
		return err
	}
	x.tunnel = t
	res.Body = upstreamSide{t}
	return nil
}

func newTunnel(upstream io.ReadCloser, shutdown context.Context) *tunnel {
	t := &tunnel{upstream: upstream, shutdown: shutdown, done: make(chan struct{})}
	t.toBrowser.init(&t.ended)
	t.toUpstream.init(&t.ended)
	return t
}

// end ends both sides, each in its own time: with a reason because the session
// ended, without one because the gateway does.
func (t *tunnel) end(reason session.Reason) {
	if !t.ended.CompareAndSwap(false, true) {
		return
	}
	code := uint16(sessionEnded)
	switch reason {
	case session.Unproven:
		code = tryAgainLater
	case "":
		code = goingAway
	}
	var browser sync.WaitGroup
	browser.Go(func() { t.toBrowser.end(closeFrame(code, string(reason)), t.toUpstream.farewell) })
	t.toUpstream.end(maskedCloseFrame(goingAway), t.toBrowser.farewell)
	browser.Wait()
	close(t.done)
}

// hold waits while the tunnel is being ended.
func (t *tunnel) hold() {
	if t.ending() {
		<-t.done
	}
}

// ending tells whether the tunnel is ended by us. At a shutdown that is so before
// end was called: the connections are its business from then on.
func (t *tunnel) ending() bool { return t.ended.Load() || t.shutdown.Err() != nil }

// half is one direction of a tunnel.
type half struct {
	to    atomic.Pointer[net.Conn] // nil before there is a connection
	ended *atomic.Bool             // the tunnel's

	over     chan struct{} // closed when nothing is sent any more
	farewell chan struct{} // closed when the sender has said its last

	mu      sync.Mutex // guards what follows, and what is sent
	begun   bool       // what comes before frames has been sent
	frames  frames     // of the sender
	stopped bool       // no frame of the sender's is sent any more, and none is half sent
	last    []byte     // the frame to end with; nil: not known yet
	isOver  bool
	broken  bool // the receiver has not got what it was sent
	said    bool // farewell is closed
}

func (h *half) init(ended *atomic.Bool) {
	h.ended, h.over, h.farewell = ended, make(chan struct{}), make(chan struct{})
}

// connect says where the half goes.
func (h *half) connect(c net.Conn) {
	h.to.Store(&c)
	if h.ended.Load() {
		c.SetWriteDeadline(time.Now().Add(streamGrace))
	}
}

// begin says that from now on frames are sent.
func (h *half) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begun = true
	h.tryLast()
}

// Write sends frames on. When the tunnel ends it sends the rest of the frame under
// way and drops what follows: who goes on to send has been told.
func (h *half) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := len(p), error(nil)
	switch {
	case h.isOver || h.stopped:
		h.frames.skip(p)
	case h.ended.Load():
		err = h.writeRest(p)
	default:
		n, err = h.conn().Write(p)
		h.frames.skip(p)
	}
	if h.frames.closed {
		h.say()
	}
	if err != nil && h.ended.Load() {
		h.finish(true)
		return len(p), nil
	}
	return n, err
}

// writeRest sends what p has of the frame under way. Callers hold mu.
func (h *half) writeRest(p []byte) error {
	rest := 0
	if !h.frames.between() {
		rest = h.frames.next(p)
		if _, err := h.conn().Write(p[:rest]); err != nil {
			return err
		}
	}
	if h.frames.between() {
		h.stop()
	}
	h.frames.skip(p[rest:])
	return nil
}

// stop ends what the sender has sent, between two frames. Callers hold mu.
func (h *half) stop() {
	if h.frames.closed && !h.stopped {
		h.finish(false) // the sender's own close frame was the last one
		return
	}
	h.stopped = true
	h.tryLast()
}

func (h *half) conn() net.Conn { return *h.to.Load() }

// tryLast sends the last frame, if it is time to. Callers hold mu.
func (h *half) tryLast() {
	if h.stopped && h.last != nil && h.begun && !h.isOver {
		_, err := h.conn().Write(h.last)
		h.finish(err != nil)
	}
}

// finish says that nothing is sent any more. Callers hold mu.
func (h *half) finish(broken bool) {
	if h.isOver {
		return
	}
	h.isOver, h.broken = true, broken
	close(h.over)
}

// say notes that the sender has said its last. Callers hold mu.
func (h *half) say() {
	if !h.said {
		h.said = true
		close(h.farewell)
	}
}

// sourceEnded notes that the sender's side has ended.
func (h *half) sourceEnded() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.say()
}

// end sends the last frame as soon as that can be, waits for the receiver's own
// and closes its side. Without a Write that ends the frame under way it breaks
// the side off.
func (h *half) end(last []byte, answered <-chan struct{}) {
	stuck := time.NewTimer(streamGrace)
	defer stuck.Stop()
	if to := h.to.Load(); to != nil {
		(*to).SetWriteDeadline(time.Now().Add(streamGrace)) // of a Write under way, too
	}
	h.mu.Lock()
	h.last = last
	if h.stopped || h.frames.between() || h.frames.closed {
		h.stop()
	}
	h.mu.Unlock()
	select {
	case <-h.over:
	case <-stuck.C:
	}
	h.mu.Lock()
	h.finish(true)
	broken := h.broken
	h.mu.Unlock()
	to := h.to.Load()
	switch {
	case to == nil:
	case broken:
		reset(*to)
	default:
		leave(*to, answered)
	}
}

// leave closes a connection after its peer has answered our close frame, so that
// what it has sent meanwhile does not make TCP discard that frame (RFC 6455,
// section 7.1.1).
func leave(c net.Conn, answered <-chan struct{}) {
	patience := time.NewTimer(streamGrace)
	defer patience.Stop()
	select {
	case <-answered:
	case <-patience.C:
	}
	c.Close()
}

// reset breaks a connection off, so that its peer does not take it for ended.
func reset(c net.Conn) {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn() // TLS would say goodbye first, and wait for who does not read
	}
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
}

// upstreamSide is the upstream to ReverseProxy.
type upstreamSide struct{ t *tunnel }

func (u upstreamSide) Read(p []byte) (int, error) {
	n, err := u.t.upstream.Read(p)
	if err != nil {
		u.t.toBrowser.sourceEnded()
		u.t.hold()
	}
	return n, err
}

func (u upstreamSide) Write(p []byte) (int, error) { return u.t.toUpstream.Write(p) }

// Close is called by ReverseProxy, also when the request is broken off, which a
// shutdown does to all that are left.
func (u upstreamSide) Close() error {
	if u.t.ending() {
		return nil // end does
	}
	return u.t.upstream.Close()
}

// browserSide is the browser to ReverseProxy.
type browserSide struct {
	net.Conn
	t     *tunnel
	early *bufio.Reader // holds what came before the upstream's answer; nil: nothing left
	begun bool
}

// browserSide takes the browser's connection into the tunnel.
func (t *tunnel) browserSide(c net.Conn, early *bufio.Reader) net.Conn {
	t.toBrowser.connect(c)
	return &browserSide{Conn: c, t: t, early: early}
}

// Read is called for the first time when the answer to the handshake has been
// sent.
func (b *browserSide) Read(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.t.toBrowser.begin()
	}
	if b.early != nil {
		if b.early.Buffered() > 0 {
			return b.early.Read(p) // no more than that
		}
		b.early = nil
	}
	n, err := b.Conn.Read(p)
	if err != nil {
		b.t.toUpstream.sourceEnded()
		b.t.hold()
	}
	return n, err
}

func (b *browserSide) Write(p []byte) (int, error) { return b.t.toBrowser.Write(p) }

// CloseWrite passes the upstream's end on.
func (b *browserSide) CloseWrite() error {
	h := &b.t.toBrowser
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finish(false)
	if c, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}
