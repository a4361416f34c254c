package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"sessiongate/session"
)

// An upload uses its session, and may go on for long. What it began under is over
// all the same when the session ends (SES-13), in whatever order its parts and the
// end come.
func TestSES13ASessionThatEndsDuringAnUploadIsNotBack(t *testing.T) {
	const rounds = 1000
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := newWorld(t)
	for _, way := range []struct {
		name string
		end  func(ctx context.Context, s *session.Session, sid string) error
	}{
		{"a logout", func(ctx context.Context, s *session.Session, _ string) error {
			_, err := w.sessions.Logout(ctx, s)
			return err
		}},
		{"the provider", func(ctx context.Context, _ *session.Session, sid string) error {
			_, err := w.sessions.EndSID(ctx, sid, session.RemoteLogout{Reason: session.BackChannel, BeganBefore: time.Now()})
			return err
		}},
		{"an operator", func(ctx context.Context, _ *session.Session, sid string) error {
			_, err := w.manager.EndAll(ctx, testOrigin, "user of "+sid)
			return err
		}},
	} {
		t.Run("by "+way.name, func(t *testing.T) {
			for i := range rounds / 3 {
				u := &upload{w: w, random: rand.New(rand.NewPCG(seed, uint64(i))), sid: fmt.Sprintf("%s %d", way.name, i)}
				u.run(t, way.end)
				if t.Failed() {
					t.Fatalf("round %d of seed %d", i, seed)
				}
			}
		})
	}
}

// upload is one round.
type upload struct {
	w      *world
	random *rand.Rand
	sid    string
}

func (u *upload) run(t *testing.T, end func(context.Context, *session.Session, string) error) {
	cookie, _ := u.w.login(time.Hour, func(l *session.Login) { l.Subject, l.SID = "user of "+u.sid, u.sid })
	s := u.w.session(cookie)
	pauses := [3]time.Duration{}
	for i := range pauses {
		pauses[i] = time.Duration(u.random.Int64N(int64(time.Millisecond)))
	}
	sent := make(chan error, 1)
	go func() { sent <- u.send(cookie, pauses[:2]) }()
	time.Sleep(pauses[2])
	if err := end(t.Context(), s, u.sid); err != nil {
		t.Errorf("end: %v", err)
	}
	if err := <-sent; err != nil {
		t.Errorf("upload: %v", err)
	}
	s.Use() // as a request that found the session before it ended
	var over *session.Ended
	if _, err := s.AccessToken(t.Context()); !errors.As(err, &over) {
		t.Errorf("the token of a session that ended: error = %v", err)
	}
	if a := u.w.send("GET /api/orders", "Cookie: "+cookie, "X-CSRF: 1"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the end: status %d", a.StatusCode)
	}
	if _, err := u.w.store.Load(t.Context(), s.Key()); !errors.As(err, &over) {
		t.Errorf("the store says %v, want a tombstone", err)
	}
}

// send sends an upload in two parts, and reads its answer: the upstream's, or that
// there is no session.
func (u *upload) send(cookie string, pauses []time.Duration) error {
	c := u.w.dial()
	defer c.Close()
	head := rawRequest("POST /api/upload", "", []string{"Cookie: " + cookie, "X-CSRF: 1", "Content-Length: 8"})
	for i, part := range []string{head + "half", "full"} {
		time.Sleep(pauses[i])
		if _, err := io.WriteString(c, part); err != nil {
			return nil // refused already
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}
