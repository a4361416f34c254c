package main

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// patientListener accepts the connections of browsers: no more at once than it has
// slots for, and each with patience for a slow reader and none for one who does
// not read at all.
type patientListener struct {
	net.Listener
	slots   chan struct{} // nil: any number of connections
	closing chan struct{}
	close   func()
	timeout *atomic.Int64 // limits.write_timeout, which a reload changes
}

// newPatientListener allows so many connections at once; 0 is any number.
func newPatientListener(l net.Listener, connections int, timeout *atomic.Int64) *patientListener {
	p := &patientListener{Listener: l, closing: make(chan struct{}), timeout: timeout}
	p.close = sync.OnceFunc(func() { close(p.closing) })
	if connections > 0 {
		p.slots = make(chan struct{}, connections)
	}
	return p
}

// Accept waits for a slot, then for a connection.
func (l *patientListener) Accept() (net.Conn, error) {
	if l.slots != nil {
		select {
		case l.slots <- struct{}{}:
		case <-l.closing:
			return nil, net.ErrClosed
		}
	}
	c, err := l.Listener.Accept()
	if err != nil {
		l.release()
		return nil, err
	}
	return &patientConn{TCPConn: c.(*net.TCPConn), timeout: l.timeout, release: sync.OnceFunc(l.release)}, nil
}

func (l *patientListener) release() {
	if l.slots != nil {
		<-l.slots
	}
}

// Close lets nobody wait for a slot any more.
func (l *patientListener) Close() error {
	l.close()
	return l.Listener.Close()
}

// patientConn ends writing to a peer who takes no byte for the time-out, and to
// nobody else: what counts is not when an answer is through, but that something of
// it goes on to be taken. It is below TLS and HTTP/2, and keeps what a TCP
// connection can do: sendfile, half-closing, resets.
//
// A write that does not block costs a look at the clock.
type patientConn struct {
	*net.TCPConn
	timeout *atomic.Int64
	release func()
	armed   atomic.Int64 // when the deadline in force was set, by sinceEpoch
	bounded atomic.Bool  // until is set

	mu    sync.Mutex // guards until, and the socket's deadline for writing
	until time.Time  // the deadline of whoever serves; zero: none
}

var epoch = time.Now()

// sinceEpoch is a cheap clock that nobody sets.
func sinceEpoch() time.Duration { return time.Since(epoch) }

// steps is how often in a time-out it is looked at what a peer takes.
const steps = 4

// freshness is for how long a deadline is not set anew: no longer than a second,
// which costs nothing at any speed, and a part of a step.
func freshness(timeout time.Duration) time.Duration { return min(timeout/steps/4, time.Second) }

// arm sees to it that a write comes back after a step.
func (c *patientConn) arm() {
	timeout, now := time.Duration(c.timeout.Load()), sinceEpoch()
	armed := time.Duration(c.armed.Load())
	if timeout == 0 && armed == 0 || armed != 0 && now-armed < freshness(timeout) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apply(timeout/steps + freshness(timeout))
}

// apply sets the socket's deadline: to the one of whoever serves, or sooner.
// Callers hold mu.
func (c *patientConn) apply(patience time.Duration) {
	deadline := c.until
	c.armed.Store(0)
	if patience > 0 {
		c.armed.Store(int64(sinceEpoch()))
		if t := time.Now().Add(patience); deadline.IsZero() || t.Before(deadline) {
			deadline = t
		}
	}
	_ = c.TCPConn.SetWriteDeadline(deadline) // fails on closed connections only
}

// SetWriteDeadline is net.Conn's. The server takes back, after every answer, what
// hardly anybody sets.
func (c *patientConn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() && !c.bounded.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
	c.bounded.Store(!t.IsZero())
	timeout := time.Duration(c.timeout.Load())
	c.apply(timeout/steps + freshness(timeout))
	return nil
}

// SetDeadline is net.Conn's.
func (c *patientConn) SetDeadline(t time.Time) error {
	return errors.Join(c.TCPConn.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Write is net.Conn's.
func (c *patientConn) Write(p []byte) (int, error) {
	c.arm()
	n, err := c.TCPConn.Write(p)
	if err == nil {
		return n, nil
	}
	var w stall
	written := n
	for errors.Is(err, os.ErrDeadlineExceeded) && c.goesOn(&w, int64(n)) {
		n, err = c.TCPConn.Write(p[written:])
		written += n
	}
	return written, err
}

// ReadFrom lets files go out by sendfile.
func (c *patientConn) ReadFrom(r io.Reader) (int64, error) {
	part, ok := r.(*io.LimitedReader)
	if ok {
		_, ok = part.R.(*os.File)
	}
	if !ok {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	var w stall
	var written int64
	for {
		c.arm()
		left := part.N
		n, err := c.TCPConn.ReadFrom(part)
		written += n
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return written, err
		case left-part.N != n:
			return written, err // without sendfile, what was read and not sent is lost
		case !c.goesOn(&w, n):
			return written, err
		}
	}
}

// stall is a write that waits.
type stall struct {
	begun  bool
	taken  time.Duration // when something was taken at the latest, by sinceEpoch
	queued int           // bytes that the peer has not taken yet
}

// goesOn decides, when a deadline has passed and n bytes went out meanwhile,
// whether to write on. Bytes that the peer takes need not make room for more: a
// socket counts as full until a third of its buffer is free, which takes a slow
// peer minutes.
func (c *patientConn) goesOn(w *stall, n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.until.IsZero() && !time.Now().Before(c.until) {
		return false // whoever serves has had enough
	}
	timeout, now, queued := time.Duration(c.timeout.Load()), sinceEpoch(), unsent(c.TCPConn)
	// What happened before the first look is not known: that counts as something.
	if !w.begun || n > 0 || queued < w.queued {
		w.taken = now
	}
	w.begun, w.queued = true, queued
	left := w.taken + timeout - now
	if timeout > 0 && left <= 0 {
		_ = c.TCPConn.SetLinger(0) // the kernel need not wait for this peer either
		return false
	}
	c.apply(min(left, timeout/steps))
	return true
}

// Close gives the slot back.
func (c *patientConn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}
