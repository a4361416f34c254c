package oidc

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/session"
)

// slowReader takes what it is sent when it is let go on.
type slowReader struct {
	next chan struct{}
	got  []string
}

func (r *slowReader) send(s string) error {
	<-r.next
	r.got = append(r.got, s)
	return nil
}

func TestSlowReadersGetTheLastOfEachKindOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := &listener{}, &slowReader{next: make(chan struct{})}
		over := false
		l.start(r, func() { over = true })
		synctest.Wait() // the first piece is on its way, and not read
		for in := range 1000 {
			l.refreshed()
			l.expiring(time.Duration(in) * time.Second)
		}
		time.Sleep(10*heartbeat + time.Second)
		r.next <- struct{}{}
		r.next <- struct{}{}
		synctest.Wait()
		want := []string{
			"retry: 2000\n: sessiongate\n\n",
			":\n\nevent: session.refreshed\ndata: {}\n\nevent: session.expiring\ndata: {\"expires_in\":999}\n\n",
		}
		if got := strings.Join(r.got, "|"); got != strings.Join(want, "|") {
			t.Errorf("sent %q, want %q", r.got, want)
		}
		l.refreshed()
		synctest.Wait()
		l.expiring(time.Second)
		l.ended(session.Logout)
		r.next <- struct{}{}
		r.next <- struct{}{}
		synctest.Wait()
		// The end comes last, and nobody needs to know any more that it is near.
		if got, want := strings.Join(r.got[2:], "|"), "event: session.refreshed\ndata: {}\n\n|event: session.ended\ndata: {\"reason\":\"logout\"}\n\n"; got != want || !over {
			t.Errorf("sent %q over %v, want %q true", got, over, want)
		}
		l.refreshed()
		l.stop()
		time.Sleep(10 * heartbeat)
		if len(r.got) != 4 {
			t.Errorf("sent %q after the end", r.got[4:])
		}
	})
}

func TestNothingIsSentAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := &listener{}, &slowReader{next: make(chan struct{}, 100)}
		l.ended(session.Revoked) // heard before the stream begins
		r.next <- struct{}{}
		l.start(r, func() {})
		synctest.Wait()
		if len(r.got) != 1 || !strings.HasPrefix(r.got[0], "event: session.ended") && !strings.HasPrefix(r.got[0], "retry") {
			t.Errorf("sent %q, want the end", r.got)
		}
		l.stop()
		for range 50 {
			r.next <- struct{}{}
		}
		l.refreshed()
		time.Sleep(10 * heartbeat)
		if len(r.got) != 1 {
			t.Errorf("sent %q after stop", r.got[1:])
		}
		l.pulse() // which had begun before
		if l.beat.Stop() {
			t.Error("there is a next heartbeat after stop")
		}
	})
}

func TestStopWaitsForWhatIsBeingSentAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := &listener{}, &slowReader{next: make(chan struct{})}
		l.start(r, func() {})
		synctest.Wait()
		l.refreshed() // waits for the first piece to be read
		stopped := false
		go func() {
			l.stop()
			stopped = true
		}()
		synctest.Wait()
		if stopped {
			t.Error("stop returned while something was being sent")
		}
		r.next <- struct{}{}
		synctest.Wait()
		if !stopped || len(r.got) != 1 {
			t.Errorf("stopped %v, sent %q, want true and what was on its way", stopped, r.got)
		}
	})
}

// A panic of a handler costs its request. One of another goroutine would cost
// everybody's.
func TestPanicsApartAreTheCallers(t *testing.T) {
	defer func() {
		if got := recover(); got != "fault" {
			t.Errorf("recovered %v, want the fault", got)
		}
	}()
	apart(func() { panic("fault") })
	t.Error("apart returned")
}
