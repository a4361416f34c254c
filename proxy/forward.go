package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// upstreamError is the failure of a request to an upstream.
type upstreamError struct {
	code string
	err  error
}

func (e *upstreamError) Error() string { return "proxy: upstream: " + e.err.Error() }
func (e *upstreamError) Unwrap() error { return e.err }

// Code is the code of the answer (DESIGN.md, section 7).
func (e *upstreamError) Code() string { return e.code }

// errGone: the browser does not wait for an answer any more.
var errGone = errors.New("proxy: the client went away")

// forward sends the request to the route's upstream, and its answer back.
//
// ReverseProxy gets a request without a header, and rewrite puts the one made
// here in its place: ReverseProxy would copy the header first and then take it
// apart by rules that let a client choose what is removed or upgraded. It keeps
// what it is good at: bodies, streams, trailers, interim answers and upgrades.
func (x *exchange) forward(r *http.Request, path string) error {
	rt := x.route
	if answered, err := x.limitForwards(r); answered || err != nil {
		return err
	}
	x.call = x.grpc && rt.speaksHTTP2()
	if err := x.limitBody(r); err != nil {
		return err
	}
	if err := x.prepare(r); err != nil {
		x.meters.unreachable.Inc()
		return err
	}
	if err := x.limitStreams(r.Header); err != nil {
		return err
	}
	x.target = rt.joined(path)
	switch {
	case x.handshake:
		r = x.dialled(r)
	case x.call:
		var err error
		if r, err = x.openCall(r); err != nil {
			return err
		}
	}
	x.header, r.Header = r.Header, nil
	rt.proxy.ServeHTTP(x, r)
	x.filterTrailers()
	if x.call && x.body.broken {
		x.endCall()
	}
	return x.failure
}

// filterTrailers holds the trailers, which ReverseProxy has added to the header
// that is sent already, to the rules of an answer's header.
func (x *exchange) filterTrailers() {
	if x.answer == nil || len(x.answer.Trailer) == 0 {
		return
	}
	h := x.Header()
	for name, values := range h {
		if values = x.answerField(strings.TrimPrefix(name, http.TrailerPrefix), values); values == nil {
			delete(h, name)
		} else {
			h[name] = values
		}
	}
}

// joined puts a path below the upstream's own.
func (rt *route) joined(path string) string {
	switch {
	case rt.base == "" || rt.base == "/":
		return path
	case path == "/":
		return rt.base
	}
	return strings.TrimSuffix(rt.base, "/") + path
}

// rewrite is called by ReverseProxy.
func (rt *route) rewrite(pr *httputil.ProxyRequest) {
	x := exchangeOf(pr.In.Context())
	out := pr.Out
	out.Header = x.header
	// Trailers would reach the upstream unchecked; they may be discarded (RFC 9110,
	// section 6.5.1).
	out.Trailer = nil
	// Upstreams that answer HEAD with a body are not rare. On a connection that is used
	// again it would be the beginning of the next one's answer (RFC 9112, section 6.3).
	// And net/http sends a body in vain, after a refusal that did not wait for it, to
	// keep a connection (RFC 9110, section 10.1.1). Where HTTP/2 may be spoken, others
	// would lose the connection they are on.
	out.Close = !rt.speaksHTTP2() && (out.Method == http.MethodHead || out.Header["Expect"] != nil)
	if !rt.preserveHost {
		out.Host = rt.host
	}
	// Opaque goes out byte for byte, where Path would be decoded and encoded
	// again. Two leading slashes in it would be a host.
	*out.URL = url.URL{
		Scheme: rt.scheme, Host: rt.host, Opaque: x.target,
		RawQuery: pr.In.URL.RawQuery, ForceQuery: pr.In.URL.ForceQuery,
	}
	if strings.HasPrefix(x.target, "//") {
		out.URL.Opaque, out.URL.RawPath = "", x.target
		out.URL.Path, _ = url.PathUnescape(x.target)
	}
}

// limitForwards obeys Max-Forwards, which counts the hops of an OPTIONS request
// (RFC 9110, section 7.6.2).
func (x *exchange) limitForwards(r *http.Request) (answered bool, err error) {
	v := r.Header["Max-Forwards"]
	if r.Method != http.MethodOptions || len(v) != 1 {
		return false, nil
	}
	n, err := strconv.ParseUint(v[0], 10, 31)
	switch {
	case err != nil:
		return false, nil // not a number: no limit
	case n > 0:
		r.Header["Max-Forwards"] = []string{strconv.FormatUint(n-1, 10)}
		return false, nil
	}
	h := x.Header()
	x.ownAnswer(h)
	h.Set("Allow", x.route.allow)
	x.WriteHeader(http.StatusNoContent)
	return true, nil
}

// limitBody refuses a body over max_body before it is read, if it says its
// length, or while it is read.
func (x *exchange) limitBody(r *http.Request) error {
	rt := x.route
	switch {
	case rt.maxBody > 0 && r.ContentLength > rt.maxBody:
		return errBodyTooLarge
	case r.ContentLength != 0:
		limit := rt.maxBody
		if limit == 0 {
			limit = -1
		}
		b := &requestBody{ReadCloser: r.Body, x: x, left: limit, patience: x.gateway.patience}
		if x.call {
			b.patience = 0 // a call may be silent for long
		}
		r.Body = b
	}
	return nil
}

// requestBody is a browser's body on its way to an upstream. Its errors are the
// browser's, not the upstream's.
type requestBody struct {
	io.ReadCloser
	x        *exchange
	left     int64         // bytes that may still come; negative: any number
	patience time.Duration // for a part of it; 0: none is needed
	ended    bool          // all of it was read

	mu     sync.Mutex // guards closed
	closed bool       // the request may be over, and its connection another's
}

// await bounds the time until more of the body is there.
func (b *requestBody) await(patience time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.x.awaitBody(patience)
	}
}

// Close is called by ReverseProxy before it returns.
func (b *requestBody) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.ReadCloser.Close()
}

func (b *requestBody) Read(p []byte) (int, error) {
	// The client of net/http looks for more behind the end, when its server may have
	// closed the body for an answer that began.
	if b.ended {
		return 0, io.EOF
	}
	if b.left >= 0 && int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	if b.patience > 0 {
		b.await(b.patience)
	}
	n, err := b.ReadCloser.Read(p)
	var timeout net.Error
	switch {
	case err == io.EOF && b.patience > 0:
		b.await(0) // the server goes on to read, to see the client leave
	case errors.As(err, &timeout) && timeout.Timeout():
		b.x.slow.Store(true)
	}
	if b.left >= 0 {
		if int64(n) > b.left {
			return int(b.left), errBodyTooLarge
		}
		b.left -= int64(n)
	}
	b.ended = err == io.EOF
	if err != nil && !b.ended {
		err = &bodyError{err}
	}
	return n, err
}

// bodyError is a body that did not come whole.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "proxy: request body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// noteFailure is called by ReverseProxy when there is no answer to pass on. The
// answer is made where all are.
func noteFailure(_ http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	if x.hijacked || x.failure != nil {
		return
	}
	x.failure = x.classify(err)
}

// classify tells whose fault it is that an upstream did not answer.
func (x *exchange) classify(err error) error {
	var body *bodyError
	var timeout net.Error
	switch {
	case x.cut():
		return x.body.why()
	case errors.Is(err, errBodyTooLarge):
		return errBodyTooLarge
	case x.late():
		return errRequestTimeout
	case x.Err() != nil || errors.Is(err, context.Canceled):
		return errGone
	case errors.As(err, &body):
		if errors.As(body.err, &timeout) && timeout.Timeout() {
			return errRequestTimeout
		}
		return errGone
	}
	failure := &upstreamError{"upstream_unreachable", err}
	meter := x.meters.unreachable
	if errors.As(err, &timeout) && timeout.Timeout() {
		failure.code, meter = "upstream_timeout", x.meters.timeout
	}
	meter.Inc()
	return failure
}
