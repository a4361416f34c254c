package oidc

import (
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
	s, err := e.app.Session(r)
	if err != nil {
		return comeNoMore(w, err)
	}
	l := &listener{}
	stop, err := s.Watch(r.Context(), session.Watcher{
		Ended: l.ended, Refreshed: l.refreshed, Expiring: l.expiring, Listener: true,
	})
	if err != nil {
		return comeNoMore(w, err)
	}
	defer stop()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // nginx would keep events back
	if conn := takeOver(w, r); conn != nil {
		tellConn(r.Context(), l, conn, h)
		return nil
	}
	tell(r.Context(), l, w)
	return nil
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

// tell sends what a listener hears by way of net/http, until the session is over
// or nobody reads it.
func tell(ctx context.Context, l *listener, w http.ResponseWriter) {
	over := make(chan struct{})
	l.start(&answerWriter{w, http.NewResponseController(w)}, func() { close(over) })
	defer l.stop()
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

// takeOver takes an HTTP/1.1 connection from the server, nil if it cannot be had,
// as over HTTP/2, where many streams share one. With the server's buffers for the
// answer and its goroutine that waits for the browser to go, an idle stream costs
// 28 KiB, without them 18.
func takeOver(w http.ResponseWriter, r *http.Request) net.Conn {
	if r.ProtoMajor != 1 || r.ProtoMinor != 1 {
		return nil
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil
	}
	return conn
}

// tellConn is tell on a connection that was taken over.
func tellConn(ctx context.Context, l *listener, conn net.Conn, h http.Header) {
	defer conn.Close()
	w := &connWriter{conn: conn}
	if w.begin(h) != nil {
		return
	}
	wake := func() { _ = conn.SetReadDeadline(time.Now()) }
	defer context.AfterFunc(ctx, wake)()
	l.start(w, wake)
	// The browser has nothing more to say, so this waits until it goes.
	_, _ = conn.Read(make([]byte, 1))
	l.stop()
	_ = w.write("0\r\n\r\n")
}

// connWriter sends chunks (RFC 9112, section 7.1).
type connWriter struct {
	conn net.Conn
	err  error // of the first write that failed
}

func (c *connWriter) begin(h http.Header) error {
	var b strings.Builder
	b.WriteString("HTTP/1.1 200 OK\r\nDate: " + time.Now().UTC().Format(http.TimeFormat) + "\r\n")
	h.Write(&b) // a Builder takes it all
	b.WriteString("Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
	return c.write(b.String())
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
