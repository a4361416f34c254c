package oidc_test

import (
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"
)

// The bubble's clock is years behind the provider's, so these tests redeem no
// code. The client's connections are closed before time passes: a goroutine that
// reads from one, or accepts them, would hold the clock.
func TestCB03FlowRunsOut(t *testing.T) {
	p := newProvider(t)
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, p)
		g.Close() // called without its server
		for _, test := range []struct {
			wait time.Duration
			want string
		}{
			{9 * time.Minute, "login_denied"},
			{10*time.Minute + time.Second, "login_refused"},
		} {
			w := httptest.NewRecorder()
			if err := g.serving.Login(w, httptest.NewRequest("GET", g.URL+"/bff/login", nil)); err != nil {
				t.Fatal(err)
			}
			u, _ := url.Parse(w.Header().Get("Location"))
			g.client.Close()
			time.Sleep(test.wait)
			r := httptest.NewRequest("GET", g.URL+"/bff/callback?error=access_denied&state="+u.Query().Get("state"), nil)
			r.AddCookie(w.Result().Cookies()[0])
			w = httptest.NewRecorder()
			refuse(w, g.serving.Callback(w, r))
			if got := w.Header().Get("X-Code"); got != test.want {
				t.Errorf("after %v: code %q, want %q", test.wait, got, test.want)
			}
			if c := w.Result().Cookies(); len(c) != 1 || c[0].MaxAge >= 0 {
				t.Errorf("after %v: cookies %v, want the flow's cleared", test.wait, c)
			}
			g.client.Close()
		}
	})
}
