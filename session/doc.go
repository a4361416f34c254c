// Package session keeps the sessions of browsers that logged in: it finds the
// session that a cookie names, keeps its access token fresh, and ends it.
//
// Tokens and claims rest in a Store, sealed by a key that only the session's
// cookie holds. In memory a session is opened once and then found by the value
// of its cookie, without cryptography and without a lock that others wait for.
//
// The main path reads as three calls: App.Session finds the session of a
// request, Session.AccessToken makes sure that its token is fresh (refresh.go),
// and the proxy forwards.
package session
