package proxy

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/session"
)

// Media types are case-insensitive (RFC 9110, section 8.3.1): an event stream by
// another spelling ends with its session, too.
func TestEventStreamsInAnySpellingEndWithTheirSession(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "Text/Event-Stream", "TEXT/EVENT-STREAM; charset=utf-8", "text/event-stream; charset=utf-8; charset=utf-8"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header()["Content-Type"] = []string{kind}
				io.WriteString(rw, ": hello\n\n")
				rw.(http.Flusher).Flush()
				<-r.Context().Done()
			})
			f := w.fetch("/live/sse", w.cookie, ": hello\n\n")
			w.logout(w.cookie)
			f.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
			if rest, err := io.ReadAll(f.body); err != nil || len(rest) > 0 {
				t.Errorf("%q, %v; want the end of the stream within a second", rest, err)
			}
		})
	}
}

// 401 and 503 of the gateway tell the helper to send the request again: they must
// not come after the upstream has acted on it.
func TestARequestThatTheUpstreamHasSeenIsNotAnsweredToBeSentAgain(t *testing.T) {
	for _, row := range []struct {
		name, path, kind string
		unknown          bool
	}{
		{"an answer that is a stream of events, the session ended", "/live/chat", "text/event-stream", false},
		{"an answer that is bound, the session ended", "/whole/order", "application/json", false},
		{"an answer that is a stream of events, nobody knows", "/live/chat", "text/event-stream", true},
		{"an answer that is bound, nobody knows", "/whole/order", "application/json", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			var orders atomic.Int32
			w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
				io.ReadAll(r.Body)
				orders.Add(1) // it is done
				if row.unknown {
					w.store.silence()
					w.manager.Reconfigure(w.sessions.Keys(), time.Hour, time.Hour)
				} else {
					w.logout(w.cookie)
				}
				rw.Header().Set("Content-Type", row.kind)
				io.WriteString(rw, "{}")
			})
			c := w.dial()
			io.WriteString(c, rawRequest("POST "+row.path, "one", []string{"Cookie: " + w.cookie, "X-CSRF: 1", "Content-Length: 3"}))
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				return // broken off
			}
			if res.Header.Get("X-Sessiongate") == "1" && (res.StatusCode == 401 || res.StatusCode == 503) {
				t.Errorf("status %d by the gateway after the upstream took the order: client.js sends it again", res.StatusCode)
			}
		})
	}
}

// endingStore ends something just before it is asked for a session.
type endingStore struct {
	session.Store
	once atomic.Bool
	end  func()
}

func (s *endingStore) Load(ctx context.Context, key session.Key) (session.Record, error) {
	if s.once.CompareAndSwap(true, false) {
		s.end()
	}
	return s.Store.Load(ctx, key)
}

// A session that ends while a download asks the store about it: the answer is 401,
// as it is a moment earlier and later, and no broken connection.
func TestAnEndWhileAStreamIsOpenedIsAnswered(t *testing.T) {
	for _, path := range []string{"/whole/file", "/live/sse"} {
		t.Run(path, func(t *testing.T) {
			w := newWorld(t)
			w.sources()
			told := make(chan bool)
			store := &endingStore{Store: w.store.Store}
			store.end = func() {
				w.sessions.EndSubject(context.Background(), "ada", session.RemoteLogout{Reason: session.BackChannel})
				time.Sleep(100 * time.Millisecond) // whoever was told has acted
				close(told)
			}
			w.store.Store = store
			serve := w.up.handle
			asked, goOn := make(chan bool), make(chan bool)
			w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
				asked <- true
				<-goOn
				serve(rw, r)
			})
			c := w.dial()
			io.WriteString(c, rawRequest("GET "+path, "", []string{"Cookie: " + w.cookie, "X-CSRF: 1"}))
			<-asked
			w.manager.Reconfigure(w.sessions.Keys(), time.Hour, time.Hour)
			store.once.Store(true)
			close(goOn)
			<-told
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode != 401 {
				t.Errorf("%v, %v; want 401", res, err)
			}
		})
	}
}

// endingBody is a body as net/http gives it to a handler: its end comes with its last
// bytes, and once the answer begins it is closed.
type endingBody struct{ text string }

func (c *endingBody) Read(p []byte) (int, error) {
	if c.text == "" {
		return 0, http.ErrBodyReadAfterClose
	}
	n := copy(p, c.text)
	c.text = c.text[n:]
	return n, io.EOF
}

func (c *endingBody) Close() error { return nil }

// The upstream may answer before net/http's client has looked whether there is
// more than Content-Length says. What it finds then must not be an error, by which
// the answer would break off (HT-15).
func TestHT15ABodyThatHasEndedStaysEnded(t *testing.T) {
	for name, left := range map[string]int64{"without a limit": -1, "at the limit": 5} {
		b := &requestBody{ReadCloser: &endingBody{"hello"}, x: &exchange{}, left: left}
		got, err := io.ReadAll(io.LimitReader(b, 5))
		if string(got) != "hello" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		for range 2 {
			if n, err := b.Read(make([]byte, 10)); n != 0 || err != io.EOF {
				t.Errorf("%s: behind the end %d bytes, %v; want EOF", name, n, err)
			}
		}
	}
}
