package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"daybreak/cmd/clientconfig"
	"daybreak/cmd/daybreak/show"
)

// callTimeout bounds one unary call.
const callTimeout = 30 * time.Second

// app is what all commands share.
type app struct {
	in        io.Reader
	out, errs io.Writer

	configPath, contextName string
}

// path is where the configuration is.
func (a *app) path() (string, error) {
	if a.configPath != "" {
		return a.configPath, nil
	}
	if path := os.Getenv("DAYBREAK_CONFIG"); path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the configuration: %w; name it with --config", err)
	}
	return filepath.Join(dir, "daybreak", "config.yaml"), nil
}

// load reads the configuration.
func (a *app) load() (*clientconfig.Config, string, error) {
	path, err := a.path()
	if err != nil {
		return nil, "", err
	}
	config, err := clientconfig.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, path, fmt.Errorf("there is no configuration at %s: log in with 'daybreak login ADDRESS --name NAME --token TOKEN', "+
			"or name another file with --config (daybreakd writes the first administrator's to admin.yaml in its data directory)", path)
	}
	return config, path, err
}

// context picks the context that this call uses.
func (a *app) context() (clientconfig.Context, error) {
	config, path, err := a.load()
	if err != nil {
		return clientconfig.Context{}, err
	}
	picked, err := config.Pick(a.contextName)
	if err != nil {
		return picked, fmt.Errorf("use %s: %w; see 'daybreak context list'", path, err)
	}
	return picked, nil
}

// withConn connects, calls do, and puts errors into words that name the server.
func (a *app) withConn(do func(conn *grpc.ClientConn) error) error {
	picked, err := a.context()
	if err != nil {
		return err
	}
	if err := checkExpiry(picked, time.Now()); err != nil {
		return err
	}
	conn, err := dial(picked)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := do(conn); err != nil {
		return &callError{server: picked.Server, err: err}
	}
	return nil
}

func dial(picked clientconfig.Context) (*grpc.ClientConn, error) {
	return picked.Dial(
		grpc.WithUserAgent("daybreak/"+version()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			return invoke(ctx, method, request, reply, conn, options...)
		}),
	)
}

// leaf is the certificate of a context.
func leaf(picked clientconfig.Context) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair([]byte(picked.Cert), []byte(picked.Key))
	if err != nil {
		return nil, fmt.Errorf("use context %s: %w", picked.Name, err)
	}
	return pair.Leaf, nil
}

// checkExpiry says that a certificate is over before the server says it in the words of TLS.
func checkExpiry(picked clientconfig.Context, now time.Time) error {
	cert, err := leaf(picked)
	if err != nil {
		return err
	}
	if now.After(cert.NotAfter) {
		return fmt.Errorf("the certificate of context %s ended on %s: ask an administrator for a token ('daybreak token create --user %s --role …') and log in again",
			picked.Name, show.Time(cert.NotAfter.Local()), cert.Subject.CommonName)
	}
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("the certificate of context %s begins on %s only: is this machine's clock right?",
			picked.Name, show.Time(cert.NotBefore.Local()))
	}
	return nil
}

// isTerminal says whether a stream is one that a person looks at.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
