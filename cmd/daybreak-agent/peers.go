package main

import (
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"daybreak/cmd/settings"
	"daybreak/hostagent"
	"daybreak/proto/identity"
)

// completePeers fills in and checks what is said of other hosts and of bandwidths.
func (o *options) completePeers() (err error) {
	if o.fetchBandwidth, err = settings.ParseBandwidth(o.FetchBandwidth); err != nil {
		return fmt.Errorf("--fetch-bandwidth %w", err)
	}
	if o.peerBandwidth, err = settings.ParseBandwidth(o.PeerBandwidth); err != nil {
		return fmt.Errorf("--peer-bandwidth %w", err)
	}
	if o.PeerListen == "" {
		if o.PeerAddress != "" {
			return errors.New("--peer-address is for --peer-listen")
		}
		return nil
	}
	host, _, err := net.SplitHostPort(o.PeerListen)
	if err != nil {
		return fmt.Errorf("--peer-listen %q: want host:port: %w", o.PeerListen, err)
	}
	if o.PeerAddress == "" {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			return fmt.Errorf("--peer-listen %s listens on every address: say with --peer-address which one other hosts shall use", o.PeerListen)
		}
		o.PeerAddress = o.PeerListen
	}
	if host, _, err := net.SplitHostPort(o.PeerAddress); err != nil || host == "" || len(o.PeerAddress) > 262 {
		return fmt.Errorf("--peer-address %q: want host:port", o.PeerAddress)
	}
	return nil
}

// peers says how images travel between this host and others: by the hosts' own certificates.
func peers(o options, id *identity.Identity) (hostagent.Peers, error) {
	p := hostagent.Peers{
		Host: id.Name(), Address: o.PeerAddress, Bandwidth: o.peerBandwidth,
		Dial: func(host, address string) (*grpc.ClientConn, error) {
			return grpc.NewClient(address, append(hostagent.DialOptions(), grpc.WithTransportCredentials(credentials.NewTLS(id.PeerTLS(host))))...)
		},
	}
	if o.PeerListen == "" {
		return p, nil
	}
	listener, err := net.Listen("tcp", o.PeerListen)
	if err != nil {
		return p, fmt.Errorf("--peer-listen: %w", err)
	}
	p.Listener, p.Credentials = listener, credentials.NewTLS(id.PeerServerTLS())
	return p, nil
}
