package crash

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
)

// person is somebody with a browser, and what they know for sure: that survives
// a kill. What was under way can turn out either way.
type person struct {
	t       *testing.T
	w       *gatewaytest.World
	name    string
	browser *gatewaytest.Browser

	session string   // cookie of the session they have
	former  []string // cookies of sessions that ended, as they were told
	unsure  string   // cookie of a session whose logout got no answer

	survived, lost, loggedOut, cutOff int // how often a session survived a kill, was lost, was ended, was being ended at a kill
}

// act does one thing: mostly calls the API, sometimes logs out, and logs in when
// logged out.
func (p *person) act() error {
	switch {
	case p.unsure != "":
		time.Sleep(time.Millisecond)
		return nil // cleared up after the next start
	case p.session == "":
		p.browser = p.w.NewBrowser()
		if _, err := p.browser.Login(p.name); err != nil {
			return err
		}
		p.session = p.browser.Session()
		return nil
	case rand.N(80) == 0:
		p.session, p.unsure = "", p.session
		if err := p.browser.Logout(); err != nil {
			return err
		}
		p.former, p.unsure = append(p.former, p.unsure), ""
		p.loggedOut++
		return nil
	}
	if err := p.call(); err != nil {
		return err
	}
	time.Sleep(rand.N(30 * time.Millisecond))
	return nil
}

// call calls the API, which has to work or tell of a lost answer.
func (p *person) call() error {
	answer, err := p.browser.Call()
	switch {
	case err != nil:
		return err
	case answer.Status == http.StatusOK:
		return nil
	case answer.Problem.Reason == "refresh_rejected":
		p.lost++
		p.former, p.session = append(p.former, p.session), ""
		return nil
	}
	return fmt.Errorf("a session that should live: %s", answer)
}

// check looks after a start at what the kill has left.
func (p *person) check() {
	p.t.Helper()
	if p.unsure != "" {
		p.clearUp()
	}
	if p.session != "" {
		if err := p.call(); err != nil {
			p.t.Errorf("%s: after a kill: %v", p.name, err)
		}
	}
	if p.session != "" {
		p.survived++
	}
	// The latest are asked for every time, the older ones now and then.
	for i, session := range p.former {
		if i < len(p.former)-3 && rand.N(10) != 0 {
			continue
		}
		answer, err := p.browser.Steal(p.w, session).Call()
		if err != nil || answer.Problem.Code != "session_ended" {
			p.t.Errorf("%s: a session that had ended: %v, %v", p.name, answer, err)
		}
	}
}

// clearUp finds out how a logout turned out that got no answer. As it is then, it
// stays.
func (p *person) clearUp() {
	p.t.Helper()
	session := p.unsure
	p.unsure = ""
	p.cutOff++
	browser := p.browser.Steal(p.w, session)
	answer, err := browser.Call()
	switch {
	case err == nil && answer.Status == http.StatusOK:
		p.browser, p.session = browser, session
	case err == nil && answer.Problem.Code == "session_ended":
		p.former = append(p.former, session)
	default:
		p.t.Errorf("%s: a session whose logout was under way: %v, %v", p.name, answer, err)
	}
}
