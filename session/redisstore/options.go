package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/redis/rueidis"
)

// Options of Open.
type Options struct {
	// Addresses are host:port of the server, of some nodes of the Cluster, or of the
	// Sentinels.
	Addresses []string
	// Cluster: they are nodes of a Cluster. Else a Cluster is not recognised.
	Cluster bool
	// Sentinel, unless zero: they are Sentinels.
	Sentinel Sentinel
	// DB is the database, always 0 in a Cluster.
	DB int
	// Prefix begins all keys. All replicas have the same; default "sessiongate:".
	Prefix string
	// Credentials are asked for at each new connection, so that a password can
	// change. Nil: the server asks for none. Both empty: the same.
	Credentials func() (username, password string, err error)
	// TLS is asked for at each new connection, so that a CA can change. Nil: plain
	// TCP, to loopback addresses only.
	TLS func() (*tls.Config, error)
	// InsecurePlaintext allows plain TCP to other than loopback addresses: in a
	// network that nobody else can read, since passwords pass.
	InsecurePlaintext bool
	// Timeout bounds each call's waiting for the server; default 2 s. Waiting for a
	// lease goes on beyond.
	Timeout time.Duration
	// Liveness is how long what was read may be believed without news of the server;
	// default 1 s.
	Liveness time.Duration
	// Grace is how much longer it is believed; default 0.
	Grace time.Duration
	// WaitReplicas is how many replicas of the server have to have a write before it
	// is done; default 0.
	WaitReplicas int
	Log          *slog.Logger // default: nothing is logged

	clock func() time.Time             // of tests: this process' clock
	wrap  func(conn net.Conn) net.Conn // of tests: around each connection
}

// Sentinel tells how to find the server by Sentinels.
type Sentinel struct {
	// Master is the name of the master set.
	Master string
	// Credentials are those of the Sentinels themselves.
	Credentials func() (username, password string, err error)
}

const (
	defaultPrefix   = "sessiongate:"
	defaultTimeout  = 2 * time.Second
	defaultLiveness = time.Second

	// topologyRefresh finds a master that was promoted while nobody told us.
	topologyRefresh = 5 * time.Second
	// silence is how long an idle connection is trusted before it is tried.
	silence = time.Second
	// buffer is that of each connection and direction.
	buffer = 64 << 10
)

// complete sets defaults and tells all that is wrong.
func (o *Options) complete() error {
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Liveness == 0 {
		o.Liveness = defaultLiveness
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	errs := []error{o.checkAddresses()}
	if o.Liveness < 0 || o.Grace < 0 {
		errs = append(errs, fmt.Errorf("liveness %v, grace %v: neither can be below 0", o.Liveness, o.Grace))
	}
	if o.WaitReplicas < 0 {
		errs = append(errs, fmt.Errorf("%d replicas to wait for: there is none below 0", o.WaitReplicas))
	}
	if o.Cluster && o.Sentinel.Master != "" {
		errs = append(errs, errors.New("a Cluster has no Sentinels"))
	}
	if o.Sentinel.Master == "" && o.Sentinel.Credentials != nil {
		errs = append(errs, errors.New("the name of the master set is missing: credentials of Sentinels alone find no server"))
	}
	if o.DB < 0 || o.Cluster && o.DB != 0 {
		errs = append(errs, fmt.Errorf("database %d: there is none below 0, and a Cluster has 0 only", o.DB))
	}
	if o.Timeout < 0 {
		errs = append(errs, fmt.Errorf("time-out %v: it has to be positive", o.Timeout))
	}
	// A brace would be taken for the begin of the hash tag.
	if len(o.Prefix) > 100 || strings.ContainsFunc(o.Prefix, func(r rune) bool { return r <= ' ' || r > '~' || r == '{' || r == '}' }) {
		errs = append(errs, fmt.Errorf("prefix %q: up to 100 printable ASCII characters, no space, no brace", o.Prefix))
	}
	return errors.Join(errs...)
}

func (o *Options) checkAddresses() error {
	if len(o.Addresses) == 0 {
		return errors.New("no address")
	}
	var errs []error
	for _, addr := range o.Addresses {
		host, port, err := net.SplitHostPort(addr)
		switch {
		case strings.Contains(addr, "@"): // it may hold a password
			errs = append(errs, errors.New("an address with an @: want host:port; username and password have keys of their own"))
		case err != nil || host == "" || port == "":
			errs = append(errs, fmt.Errorf("address %q: want host:port", addr))
		case !o.mayDial(host):
			errs = append(errs, fmt.Errorf("address %q: %w", addr, errPlaintext))
		}
	}
	if !o.Cluster && o.Sentinel.Master == "" && len(o.Addresses) > 1 {
		errs = append(errs, errors.New("more than one address: neither a Cluster nor Sentinels"))
	}
	return errors.Join(errs...)
}

var errPlaintext = errors.New("plain TCP to other than a loopback address")

// mayDial tells whether a host may be talked to as the options are.
func (o *Options) mayDial(host string) bool {
	ip := net.ParseIP(host)
	return o.TLS != nil || o.InsecurePlaintext || host == "localhost" || ip != nil && ip.IsLoopback()
}

// client puts the options as rueidis has them.
func (o *Options) client() rueidis.ClientOption {
	c := rueidis.ClientOption{
		InitAddress:       o.Addresses,
		SelectDB:          o.DB,
		ForceSingleClient: !o.Cluster && o.Sentinel.Master == "",
		Dialer:            net.Dialer{Timeout: o.Timeout, KeepAlive: silence},
		ConnWriteTimeout:  o.Timeout,
		DialCtxFn:         o.dial,
		AuthCredentialsFn: o.authenticate,
		ClientName:        "sessiongate",
		// Redis 7.2 and later list it, others answer with an error for each connection.
		ClientSetInfo: rueidis.DisableClientSetInfo,
		// Nothing is repeated but what this package knows may be.
		DisableRetry: true,
		DisableCache: true,
		// A call is done with when its context is, without closing the connection under
		// all others.
		AlwaysPipelining:    true,
		BlockingPoolSize:    writers,
		BlockingPoolCleanup: writersIdle,
		ReadBufferEachConn:  buffer,
		WriteBufferEachConn: buffer,
		Sentinel: rueidis.SentinelOption{
			MasterSet:               o.Sentinel.Master,
			Dialer:                  net.Dialer{Timeout: o.Timeout, KeepAlive: silence, Control: ofSentinel},
			TopologyRefreshInterval: topologyRefresh,
		},
	}
	if o.TLS != nil { // dial has the one in force; this makes a Cluster tell its TLS ports
		c.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return c
}

// ofSentinel marks the dialer of connections to Sentinels, whose credentials are
// their own: rueidis asks for those of either by one function.
func ofSentinel(string, string, syscall.RawConn) error { return nil }

// sentinelConn is a connection to a Sentinel.
type sentinelConn struct{ net.Conn }

type sentinelAddr struct{ net.Addr }

func (c sentinelConn) RemoteAddr() net.Addr { return sentinelAddr{c.Conn.RemoteAddr()} }

// dial connects to an address, of the options or one that a Sentinel or a node of
// the Cluster named.
func (o *Options) dial(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if !o.mayDial(host) {
		return nil, fmt.Errorf("%s: %w", addr, errPlaintext)
	}
	conn, err := o.connect(ctx, addr, host, d)
	if err != nil {
		return nil, err
	}
	if o.wrap != nil {
		conn = o.wrap(conn)
	}
	if d.Control != nil {
		conn = sentinelConn{conn}
	}
	return conn, nil
}

// now is the time by this process' clock.
func (o *Options) now() time.Time {
	if o.clock != nil {
		return o.clock()
	}
	return time.Now()
}

func (o *Options) until(t time.Time) time.Duration { return t.Sub(o.now()) }

func (o *Options) connect(ctx context.Context, addr, host string, d *net.Dialer) (net.Conn, error) {
	if o.TLS == nil {
		return d.DialContext(ctx, "tcp", addr)
	}
	config, err := o.TLS()
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName = host
	}
	return (&tls.Dialer{NetDialer: d, Config: config}).DialContext(ctx, "tcp", addr)
}

func (o *Options) authenticate(c rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
	credentials := o.Credentials
	if _, ok := c.Address.(sentinelAddr); ok {
		credentials = o.Sentinel.Credentials
	}
	if credentials == nil {
		return rueidis.AuthCredentials{}, nil
	}
	username, password, err := credentials()
	if err != nil {
		return rueidis.AuthCredentials{}, fmt.Errorf("credentials: %w", err)
	}
	return rueidis.AuthCredentials{Username: username, Password: password}, nil
}
