package main

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/cmd/daybreak/show"
)

// callError is an error of a call, with the server that was called.
type callError struct {
	server string
	err    error
}

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// sentence puts an error into words for people: what was wrong, where, and what to do. What servers say is shown, with
// nothing in it that could move the cursor.
func sentence(err error) string {
	var call *callError
	server := ""
	if errors.As(err, &call) {
		server = call.server
	}
	// Not status.FromError, which puts the words of everything around the status into its message.
	var carrier interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &carrier) {
		return lines(err.Error())
	}
	found := carrier.GRPCStatus()
	said := lines(found.Message())
	switch found.Code() {
	case codes.Unavailable:
		return unavailable(server, said)
	case codes.DeadlineExceeded:
		return "no answer from " + server + " in time; if this was a change it may have happened: look before you try again. (" + said + ")"
	case codes.Unauthenticated:
		return server + " does not know who you are: " + said
	case codes.PermissionDenied:
		return "not permitted: " + said
	case codes.Unimplemented:
		return server + " cannot do that: it runs another version, or without this part. (" + said + ")"
	case codes.Unknown:
		return said
	case codes.Internal:
		return server + " failed: " + said
	}
	return said
}

// inFlags names what is wrong as the command line has it, where a server's error names the field of a message: {field: flag}.
func inFlags(err error, flags map[string]string) error {
	found, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	said := found.Proto()
	for field, flag := range flags {
		said.Message = strings.ReplaceAll(said.GetMessage(), field+": ", flag+": ")
	}
	return status.ErrorProto(said)
}

// unavailable tells the ways apart in which a server cannot be reached.
func unavailable(server, said string) string {
	for _, way := range []struct{ sign, words string }{
		{"unknown authority", "the server at %s is not the one this context was made for (its certificate has another authority): check the address, or log in anew"},
		{"certificate is valid for", "the server at %s shows a certificate for another name: is that daybreakd's port?"},
		{"expired certificate", "the server at %s says that your certificate has ended: log in with a new token"},
		{"certificate has expired or is not yet valid", "the certificate of the server at %s is not valid now: is this machine's clock right?"},
		{"first record does not look like a TLS handshake", "what listens at %s is not daybreakd: it does not speak TLS"},
		{"connection refused", "nothing listens at %s: is daybreakd running there?"},
		{"no such file or directory", "there is no socket at %s: is daybreakd running on this machine?"},
		{"permission denied", "the socket at %s may not be opened by this user"},
		{"no such host", "the name in %s is not known: check the address"},
		{"produced zero addresses", "the name in %s is not known: check the address"},
		{"i/o timeout", "no answer from %s: is the address right, and does a firewall stand between?"},
		{"network is unreachable", "there is no way to %s from here: check the network"},
		{"no route to host", "there is no way to %s from here: check the network"},
	} {
		if strings.Contains(said, way.sign) {
			return fmt.Sprintf(way.words, server)
		}
	}
	return "the control plane at " + server + " cannot be reached or is not ready: " + said
}

// lines cleans a text line by line.
func lines(text string) string {
	parts := strings.Split(text, "\n")
	for i := range parts {
		parts[i] = show.Clean(parts[i])
	}
	return strings.Join(parts, "\n")
}
