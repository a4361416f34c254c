package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sessiongate/session"
)

// stream is what has to be undone when an answer that goes on is over.
type stream struct {
	open    prometheus.Gauge
	unwatch func()      // of the session; nil: there is none
	stop    func() bool // of the gateway; nil: it waits
	timed   bool        // the time to its answer's beginning is counted
}

// open begins a stream that belongs to the request's session, if it has one: end
// is called when that ends. At a shutdown it is called without a reason. Both
// happen in goroutines of their own and may happen before open returns.
func (x *exchange) open(gauge prometheus.Gauge, end func(session.Reason)) error {
	s := &stream{open: gauge}
	if x.session != nil {
		w := session.Watcher{Ended: end, KeepsAlive: x.route.keepsAlive}
		if gauge != x.meters.download { // a download is a request as others are
			w.Streams = x.gateway.limits.Streams
		}
		stop, err := x.session.Watch(x, w)
		if err != nil {
			x.failure = err
			return err
		}
		s.unwatch = stop
	}
	s.stop = context.AfterFunc(x.gateway.streams, func() { end("") })
	x.opened(s)
	return nil
}

// limitStreams refuses what asks for a stream when the session has enough of them:
// before the upstream hears of it, which open cannot. It looks at no lock for
// anything else.
func (x *exchange) limitStreams(h http.Header) error {
	most := x.gateway.limits.Streams
	if most == 0 || x.session == nil || !x.handshake && !x.call && !asksForStream(h) || x.session.Streams() < most {
		return nil
	}
	return session.ErrTooManyStreams
}

// asksForStream tells a request whose answer is most likely a stream.
func asksForStream(h http.Header) bool {
	v := h["Accept"]
	return len(v) == 1 && strings.HasPrefix(v[0], "text/event-stream")
}

// opened counts a stream until finish.
func (x *exchange) opened(s *stream) {
	x.stream = s
	s.open.Inc()
	if !x.call { // whose answer has not begun yet
		x.answerBegan()
	}
}

// answerBegan counts the time of a stream: that to its answer's beginning.
func (x *exchange) answerBegan() {
	x.stream.timed = true
	x.meters.seconds.Observe(time.Since(x.began).Seconds())
}

func (s *stream) finish() {
	if s.unwatch != nil {
		s.unwatch()
	}
	if s.stop != nil {
		s.stop()
	}
	s.open.Dec()
}

// errCut breaks an answer off in the middle, so that nobody takes a part for the
// whole.
var errCut = errors.New("proxy: the session of this answer has ended")

var errUnproven = errors.New("proxy: nobody knows any more whether the session of this answer has ended")

// body is the body of an answer that ends with its session.
type body struct {
	io.ReadCloser // the upstream's; of a gRPC call nil until there is an answer
	x             *exchange
	stop          func() // ends what the upstream sends
	// events: the end of an event stream is an end, after which the browser asks
	// again and hears why. call: that of a gRPC call has a status. Anything else is
	// broken off.
	events, call bool
	broken       bool // a call was read to such an end
	reason       session.Reason
	ended        atomic.Bool // reason is set

	mu   sync.Mutex // guards over
	over bool       // the answer is, and its connection may be another's
}

// openBody begins a stream of what an upstream answers.
func (x *exchange) openBody(upstream io.ReadCloser, gauge prometheus.Gauge, events bool) (*body, error) {
	b := &body{ReadCloser: upstream, x: x, stop: func() { upstream.Close() }, events: events}
	if err := x.open(gauge, b.end); err != nil {
		b.finish() // there is another answer, which no end is to break off
		_ = http.NewResponseController(x.ResponseWriter).SetWriteDeadline(time.Time{})
		return nil, err
	}
	x.body = b
	return b, nil
}

// end lets nothing more through, and no browser hold it up by not reading. A
// shutdown ends event streams only: other answers are worth waiting for.
func (b *body) end(reason session.Reason) {
	patience := time.Duration(0)
	switch {
	case b.events || b.call && reason != "":
		patience = streamGrace
	case reason == "":
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return
	}
	b.reason = reason
	b.ended.Store(true)
	// The server takes it back before the connection's next request.
	_ = http.NewResponseController(b.x.ResponseWriter).SetWriteDeadline(time.Now().Add(patience))
	b.stop()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case !b.ended.Load():
		return n, err
	case b.events:
		return 0, io.EOF
	case b.call:
		b.broken = true
		return 0, io.EOF
	}
	return 0, errCut
}

// cut tells whether it was us who broke the answer off.
func (x *exchange) cut() bool { return x.body != nil && x.body.ended.Load() }

// why is the error for which the answer was broken off.
func (b *body) why() interface {
	error
	Code() string
} {
	if b.reason == session.Unproven {
		return &session.StoreError{Err: errUnproven}
	}
	return &session.Ended{Reason: b.reason}
}

// finish is called before the answer is handed over for good.
func (b *body) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
}
