package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/proxy"
)

// makePlain prepares for those who come without TLS where the gateway speaks it,
// to the public listener or to that of tls.redirect.
func (s *server) makePlain(cfg *config.Config) {
	s.front = newFront(s.publicSocket)
	s.plain = &http.Server{
		Handler:                      http.HandlerFunc(s.servePlain),
		ReadTimeout:                  readHeaderTimeout, // nothing is worth waiting for
		WriteTimeout:                 readHeaderTimeout,
		DisableGeneralOptionsHandler: true,
		MaxHeaderBytes:               cfg.Limits.HeaderBytes,
		ErrorLog:                     s.public.ErrorLog,
	}
	s.plain.SetKeepAlivesEnabled(false)
}

func (s *server) servePlain(w http.ResponseWriter, r *http.Request) {
	s.serve(w, r, (*proxy.Gateway).ServePlain)
}

// front tells the connections of those who speak TLS from those of others, by
// their first byte.
type front struct {
	socket        net.Listener
	secure, plain *side
	closing       context.Context
	stop          context.CancelFunc
}

// newFront sorts connections from when both sides are served.
func newFront(socket net.Listener) *front {
	f := &front{socket: socket}
	f.closing, f.stop = context.WithCancel(context.Background())
	f.secure = &side{front: f, begun: make(chan net.Conn), failed: make(chan error)}
	f.plain = &side{front: f, begun: make(chan net.Conn), failed: make(chan error)}
	return f
}

// run accepts until the front is closed. Failures are for the secure side to
// report: it waits before it asks again, or gives up.
func (f *front) run() {
	for {
		conn, err := f.socket.Accept()
		if err == nil {
			go f.sort(conn)
			continue
		}
		select {
		case f.secure.failed <- err:
		case <-f.closing.Done():
			return
		}
	}
}

// recordHandshake is the first byte of a TLS connection (RFC 8446, section 5.1),
// and of no HTTP request.
const recordHandshake = 22

// sort waits for the first byte, for as long as a header may take.
func (f *front) sort(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(readHeaderTimeout))
	first := make([]byte, 1)
	if _, err := conn.Read(first); err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	to := f.plain
	if first[0] == recordHandshake {
		to = f.secure
	}
	select {
	case to.begun <- &begunConn{Conn: conn, read: first}:
	case <-f.closing.Done():
		_ = conn.Close()
	}
}

func (f *front) close() error {
	f.stop()
	return f.socket.Close()
}

// side is a front's listener for one kind of connections.
type side struct {
	front  *front
	begun  chan net.Conn
	failed chan error
}

func (l *side) Accept() (net.Conn, error) {
	select {
	case conn := <-l.begun:
		return conn, nil
	case err := <-l.failed:
		return nil, err
	case <-l.front.closing.Done():
		return nil, net.ErrClosed
	}
}

func (l *side) Addr() net.Addr { return l.front.socket.Addr() }
func (l *side) Close() error   { return l.front.close() }

// begunConn is a connection of which something was read already.
type begunConn struct {
	net.Conn
	read []byte
}

func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.read) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.read)
	c.read = c.read[n:]
	return n, nil
}

// CloseWrite lets net/http say goodbye to those who still send, so that they see
// the answer before the reset.
func (c *begunConn) CloseWrite() error {
	if tcp, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return tcp.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetLinger lets the proxy break a connection off, as it does without TLS.
func (c *begunConn) SetLinger(seconds int) error {
	if tcp, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return tcp.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

// certificate chooses by SNI.
func (e *edition) certificate(serverName string) *tls.Certificate {
	if c := e.byHost[serverName]; c != nil {
		return c
	}
	return e.fallback
}

// covers tells whether the certificate for a client that asks for serverName is
// for host too.
func (e *edition) covers(serverName, host string) bool {
	c := e.certificate(serverName)
	return c != nil && c.Leaf.VerifyHostname(host) == nil
}
