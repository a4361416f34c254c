package proxy

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// pace is how many bytes a second a client has to take of an HTTP/2 stream: a
// buffer in a minute. How much of a write it took is not to be seen there, so that
// a write is cut into pieces that are through within the time-out at this pace.
const pace = float64(bufferSize) / 60

// leastPiece is what net/http sends at once at least.
const leastPiece = 4 << 10

// stall ends an HTTP/2 stream whose client takes nothing of it. Its connection may
// be as busy as it likes, so that nothing below would notice (RFC 9113, section
// 5.2). Of HTTP/1.1, connections themselves see to that.
//
// A deadline of the stream itself would end it though nothing is being written, and
// cost every write a message to the connection's goroutine.
type stall struct {
	timeout time.Duration
	piece   int
	began   time.Time
	writing atomic.Int64 // since when, after began; 0: nothing is being written

	mu    sync.Mutex // guards what follows
	timer *time.Timer
	over  bool // the response writer is of no exchange any more
	w     http.ResponseWriter
}

// watchWrites begins to look after the writes of an answer over HTTP/2.
func (x *exchange) watchWrites(r *http.Request) {
	timeout := x.gateway.limits.WriteTimeout
	if r.ProtoMajor != 2 || timeout <= 0 {
		return
	}
	x.stall = &stall{
		timeout: timeout, began: x.began, w: x.ResponseWriter,
		piece: int(min(bufferSize, max(pace*timeout.Seconds(), leastPiece))),
	}
}

// write writes in pieces.
func (s *stall) write(b []byte) (int, error) {
	written := 0
	for {
		part := b[written:min(len(b), written+s.piece)]
		s.start()
		n, err := s.w.Write(part)
		s.writing.Store(0)
		written += n
		if err != nil || written >= len(b) {
			return written, err
		}
	}
}

// flush sends what was written and not sent.
func (s *stall) flush() error {
	s.start()
	defer s.writing.Store(0)
	return http.NewResponseController(s.w).Flush()
}

// start notes that something is being written.
func (s *stall) start() {
	s.writing.Store(int64(time.Since(s.began)) | 1)
	if s.timer == nil { // only whoever writes sets it
		s.mu.Lock()
		s.timer = time.AfterFunc(s.timeout/4, s.look)
		s.mu.Unlock()
	}
}

// look ends the stream if a write has taken too long.
func (s *stall) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	if since := s.writing.Load(); since != 0 && time.Since(s.began)-time.Duration(since) >= s.timeout {
		_ = http.NewResponseController(s.w).SetWriteDeadline(time.Now().Add(-time.Second))
		return
	}
	s.timer.Reset(s.timeout / 4)
}

// finish leaves what is still to be sent to a deadline, unless there is one: the
// server sends it when the handler has returned, and nothing is written later.
func (s *stall) finish(bounded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.timer != nil {
		s.timer.Stop()
	}
	if bounded {
		return
	}
	_ = http.NewResponseController(s.w).SetWriteDeadline(time.Now().Add(s.timeout))
}
