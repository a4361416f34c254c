package oidc

import (
	"sync"
	"time"

	"sessiongate/session"
)

// heartbeat is how often something is sent, so that nothing on the way takes the
// connection for dead.
const heartbeat = 25 * time.Second

// listener is told what becomes of a session, and has it sent to a browser. It
// keeps no goroutine for that: whoever brings news starts one, unless one is at it.
type listener struct {
	to   sender
	over func()      // wakes whoever serves the stream when it has come to its end
	beat *time.Timer // brings a heartbeat
	work sync.WaitGroup

	mu      sync.Mutex // guards what follows, and sending against stop
	news    news
	sending bool
	stopped bool
}

// sender sends what it is given at once, or fails.
type sender interface{ send(s string) error }

// news is what has not been sent yet. Of each kind only the last counts, so that a
// slow reader costs no memory.
type news struct {
	first     bool // the stream begins
	beat      bool
	refreshed bool
	near      bool // an end is near: in
	in        time.Duration
	over      session.Reason
}

// start begins to send. Whatever was heard before waits for it.
func (l *listener) start(to sender, over func()) {
	l.mu.Lock()
	l.to, l.over = to, over
	l.beat = time.AfterFunc(heartbeat, l.pulse)
	l.mu.Unlock()
	l.hear(func(n *news) { n.first = true })
}

// stop returns when nothing is being sent any more.
func (l *listener) stop() {
	l.mu.Lock()
	l.stopped = true
	l.beat.Stop()
	l.mu.Unlock()
	l.work.Wait()
}

func (l *listener) ended(reason session.Reason) { l.hear(func(n *news) { n.over = reason }) }
func (l *listener) refreshed()                  { l.hear(func(n *news) { n.refreshed = true }) }
func (l *listener) expiring(in time.Duration)   { l.hear(func(n *news) { n.near, n.in = true, in }) }

func (l *listener) pulse() {
	l.hear(func(n *news) {
		n.beat = true
		l.beat.Reset(heartbeat)
	})
}

// hear adds to the news, and never waits.
func (l *listener) hear(change func(*news)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	change(&l.news)
	if l.to != nil && !l.sending {
		l.sending = true
		l.work.Go(l.send)
	}
}

// send sends until there is no more news. After the end, or for a browser that
// does not read, there never is.
func (l *listener) send() {
	for {
		n, ok := l.take()
		if !ok {
			return
		}
		if err := l.to.send(n.String()); err != nil || n.over != "" {
			l.over()
			return
		}
	}
}

func (l *listener) take() (n news, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, l.news = l.news, news{}
	if n == (news{}) || l.stopped {
		l.sending = false
		return n, false
	}
	return n, true
}
