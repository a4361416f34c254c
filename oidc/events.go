package oidc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"sessiongate/session"
)

// eventPatience is how long a browser may take to read what it is sent.
const eventPatience = 10 * time.Second

// Events tells a page what becomes of its session, as server-sent events (HTML,
// section 9.2). It neither counts as use nor refreshes anything.
func (e *Endpoints) Events(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	var s *eventStream
	var err error
	apart(func() { s, err = e.openStream(w, r) })
	if s == nil {
		return comeNoMore(w, err)
	}
	defer s.unwatch()
	if s.conn != nil {
		s.tellConn(r.Context())
	} else {
		s.tell(r.Context(), w)
	}
	return nil
}

// apart calls f in a goroutine of its own. A stack that grew stays large while its
// goroutine waits as deep down as a handler does, and most streams wait most of
// the time: so that is another goroutine's, which is over soon.
func apart(f func()) {
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		f()
	}()
	<-done
	if panicked != nil {
		panic(panicked) // it is the request's, not the gateway's
	}
}

// eventStream is a browser that listens.
type eventStream struct {
	listener
	unwatch func()
	conn    net.Conn // nil: what is told goes by way of net/http
}

// openStream watches the session of a request, and answers with the header of the
// stream.
func (e *Endpoints) openStream(w http.ResponseWriter, r *http.Request) (*eventStream, error) {
	live, err := e.app.Session(r)
	if err != nil {
		return nil, err
	}
	s := &eventStream{}
	s.unwatch, err = live.Watch(r.Context(), session.Watcher{
		Ended: s.ended, Refreshed: s.refreshed, Expiring: s.expiring, Listener: true,
	})
	if err != nil {
		return nil, err
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // nginx would keep events back
	s.conn = takeOver(w, r)
	return s, nil
}

// comeNoMore answers for a session that is over in the way that keeps EventSource
// from trying again.
func comeNoMore(w http.ResponseWriter, err error) error {
	var ended *session.Ended
	if !errors.As(err, &ended) {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// String is the news as a piece of an event stream, the end last.
func (n news) String() string {
	var b strings.Builder
	if n.first {
		// A browser that loses the connection comes again after so many milliseconds.
		b.WriteString("retry: 2000\n: sessiongate\n\n")
	}
	if n.beat {
		b.WriteString(":\n\n")
	}
	if n.refreshed {
		b.WriteString("event: session.refreshed\ndata: {}\n\n")
	}
	if n.near && n.over == "" {
		fmt.Fprintf(&b, "event: session.expiring\ndata: {\"expires_in\":%d}\n\n", seconds(n.in.Round(time.Second)))
	}
	if n.over != "" {
		reason, _ := json.Marshal(n.over) // a string always can be
		fmt.Fprintf(&b, "event: session.ended\ndata: {\"reason\":%s}\n\n", reason)
	}
	return b.String()
}

// tell sends what the listener hears by way of net/http, until the session is over
// or nobody reads it.
func (s *eventStream) tell(ctx context.Context, w http.ResponseWriter) {
	over := make(chan struct{})
	s.start(&answerWriter{w, http.NewResponseController(w)}, func() { close(over) })
	defer s.stop()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

type answerWriter struct {
	w       io.Writer
	control *http.ResponseController
}

// send takes its deadline away when all is sent: over HTTP/2 one that passes ends
// the stream though nothing is being written. When sending fails it stays, so that
// the server does not wait for the browser either.
func (a *answerWriter) send(s string) error {
	// Response writers that know no deadlines are those of tests.
	_ = a.control.SetWriteDeadline(time.Now().Add(eventPatience))
	if _, err := io.WriteString(a.w, s); err != nil {
		return err
	}
	if err := a.control.Flush(); err != nil {
		return err
	}
	_ = a.control.SetWriteDeadline(time.Time{})
	return nil
}

// takeOver takes an HTTP/1.1 connection from the server after the header is
// written, nil if it cannot be had, as over HTTP/2, where many streams share one.
// The server's buffers, and its goroutine that waits for the browser to go, would
// make an idle stream cost half as much again.
func takeOver(w http.ResponseWriter, r *http.Request) net.Conn {
	if r.ProtoMajor != 1 || r.ProtoMinor != 1 {
		return nil
	}
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusOK)
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil
	}
	// The server holds on to this reader, but reads no more: away with its buffer.
	*rw.Reader = bufio.Reader{}
	return conn
}

// tellConn is tell on a connection that was taken over.
func (s *eventStream) tellConn(ctx context.Context) {
	defer s.conn.Close()
	w := &connWriter{conn: s.conn}
	wake := func() { _ = s.conn.SetReadDeadline(time.Now()) }
	defer context.AfterFunc(ctx, wake)()
	s.start(w, wake)
	// The browser has nothing more to say, so this waits until it goes.
	_, _ = s.conn.Read(make([]byte, 1))
	s.stop()
	_ = w.write("0\r\n\r\n")
}

// connWriter sends chunks (RFC 9112, section 7.1), as the header says.
type connWriter struct {
	conn net.Conn
	err  error // of the first write that failed
}

func (c *connWriter) send(s string) error { return c.write(fmt.Sprintf("%x\r\n%s\r\n", len(s), s)) }

func (c *connWriter) write(s string) error {
	if c.err == nil {
		c.err = c.conn.SetWriteDeadline(time.Now().Add(eventPatience))
	}
	if c.err == nil {
		_, c.err = io.WriteString(c.conn, s)
	}
	return c.err
}
