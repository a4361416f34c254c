package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"sessiongate/session"
)

const (
	// heartbeat is how often something is sent, so that neither side's network takes
	// the connection for dead.
	heartbeat = 25 * time.Second
	// eventPatience is how long a browser may take to read what it is sent.
	eventPatience = 10 * time.Second
)

// Events tells a page what becomes of its session, as server-sent events (HTML,
// section 9.2). It neither counts as use nor refreshes anything.
func (e *Endpoints) Events(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	s, err := e.app.Session(r)
	if err != nil {
		return comeNoMore(w, err)
	}
	l := &listener{woken: make(chan struct{}, 1)}
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
	l.serve(r.Context(), eventWriter{w, http.NewResponseController(w)})
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

// listener holds what is still to be told. Of each kind of event only the last
// one counts, so that a slow reader costs no memory.
type listener struct {
	woken chan struct{} // holds one element when there is something to tell

	mu   sync.Mutex // guards news
	news news
}

type news struct {
	refreshed bool
	near      bool
	in        time.Duration // to the end that is near
	over      session.Reason
}

func (l *listener) ended(reason session.Reason) { l.note(func(n *news) { n.over = reason }) }
func (l *listener) refreshed()                  { l.note(func(n *news) { n.refreshed = true }) }
func (l *listener) expiring(in time.Duration)   { l.note(func(n *news) { n.near, n.in = true, in }) }

func (l *listener) note(change func(*news)) {
	l.mu.Lock()
	change(&l.news)
	l.mu.Unlock()
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// take returns what there is to tell, and forgets it.
func (l *listener) take() news {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.news
	l.news = news{}
	return n
}

// serve writes events until the session is over, or nobody reads them.
func (l *listener) serve(ctx context.Context, w eventWriter) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	// A browser that loses the connection comes again after so many milliseconds.
	err := w.send("retry: 2000\n: sessiongate\n\n")
	for err == nil {
		select {
		case <-l.woken:
			n := l.take()
			if err = w.send(n.String()); n.over != "" {
				return
			}
		case <-beat.C:
			err = w.send(":\n\n")
		case <-ctx.Done():
			return
		}
	}
}

// String is the news as events, the end last.
func (n news) String() string {
	s := ""
	if n.refreshed {
		s += "event: session.refreshed\ndata: {}\n\n"
	}
	if n.near && n.over == "" {
		s += fmt.Sprintf("event: session.expiring\ndata: {\"expires_in\":%d}\n\n", seconds(n.in.Round(time.Second)))
	}
	if n.over != "" {
		reason, _ := json.Marshal(n.over) // a string always can be
		s += fmt.Sprintf("event: session.ended\ndata: {\"reason\":%s}\n\n", reason)
	}
	return s
}

// eventWriter sends what it is given at once.
type eventWriter struct {
	io.Writer
	*http.ResponseController
}

// send fails for a browser that does not read. Then its deadline stays, so that
// the server does not wait for it either; else it goes, for it would be that of
// later answers on the connection.
func (w eventWriter) send(s string) error {
	// Response writers that know no deadlines are those of tests.
	_ = w.SetWriteDeadline(time.Now().Add(eventPatience))
	if _, err := io.WriteString(w, s); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_ = w.SetWriteDeadline(time.Time{})
	return nil
}
