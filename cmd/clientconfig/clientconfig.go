// Package clientconfig is the file in which a person's program keeps how it reaches Daybreak: named contexts, each with
// a server, the CA to trust, and a certificate with its key.
//
// Here: the file's form, reading it strictly, writing it whole, and dialling a context. Not here: where certificates come
// from (proto/identity, api). cmd/daybreak reads and writes it; cmd/daybreakd writes the first administrator's.
package clientconfig

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"daybreak/proto/identity"
)

const maxFile = 1 << 20

// ErrNoContext: the file has no context of that name, or none is chosen.
var ErrNoContext = errors.New("no such context")

// Config is the whole file.
type Config struct {
	// Current names the context that is used when none is named.
	Current  string    `yaml:"current-context"`
	Contexts []Context `yaml:"contexts"`
}

// Context is one way to reach one cluster.
type Context struct {
	Name string `yaml:"name"`
	// Server is "host:port" or "unix:///path".
	Server string `yaml:"server"`
	// ServerName is the name that the server's certificate must have. Empty means the one that every daybreakd has.
	ServerName string `yaml:"server-name,omitempty"`
	// CA holds the certificates to trust, Cert and Key the caller's own, all as PEM text.
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Load reads the file. It must be its owner's alone, since it holds a key. The error wraps fs.ErrNotExist when there is
// none.
func Load(path string) (*Config, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read client config: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read client config: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("read client config %s: not a file of at most %d bytes", path, maxFile)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read client config %s: others can read the key in it (mode %04o): run chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read client config %s: %w", path, err)
	}
	config, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read client config %s: %w", path, err)
	}
	return config, nil
}

// Parse reads the file's text; unknown keys and contexts without a name of their own are errors.
func Parse(text []byte) (*Config, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	config := &Config{}
	if err := decoder.Decode(config); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	seen := map[string]bool{}
	for i, c := range config.Contexts {
		if c.Name == "" || c.Server == "" {
			return nil, fmt.Errorf("contexts[%d]: name and server are needed", i)
		}
		if seen[c.Name] {
			return nil, fmt.Errorf("contexts[%d]: %q stands twice", i, c.Name)
		}
		seen[c.Name] = true
	}
	return config, nil
}

// Save writes the file, for its owner alone: all of it or nothing, on disk before it returns.
func (c *Config) Save(path string) error {
	text, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("write client config: %w", err)
	}
	if err := replace(path, text); err != nil {
		return fmt.Errorf("write client config: %w", err)
	}
	return nil
}

func replace(path string, text []byte) (err error) {
	// CreateTemp makes files of mode 0600.
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	if _, err := file.Write(text); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Pick returns the named context, the current one for "".
func (c *Config) Pick(name string) (Context, error) {
	if name == "" {
		name = c.Current
	}
	var names []string
	for _, context := range c.Contexts {
		if context.Name == name {
			return context, nil
		}
		names = append(names, context.Name)
	}
	if name == "" {
		return Context{}, fmt.Errorf("%w: none is chosen; there are: %s", ErrNoContext, strings.Join(names, ", "))
	}
	return Context{}, fmt.Errorf("%w: %q; there are: %s", ErrNoContext, name, strings.Join(names, ", "))
}

// Set adds the context, in place of one of the same name, and makes it current when none is.
func (c *Config) Set(context Context) {
	i := slices.IndexFunc(c.Contexts, func(have Context) bool { return have.Name == context.Name })
	if i < 0 {
		c.Contexts = append(c.Contexts, context)
	} else {
		c.Contexts[i] = context
	}
	if c.Current == "" {
		c.Current = context.Name
	}
}

// TLS makes the settings of a connection to the context's server.
func (c Context) TLS() (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(c.CA)) {
		return nil, fmt.Errorf("use context %s: ca holds no PEM certificate", c.Name)
	}
	pair, err := tls.X509KeyPair([]byte(c.Cert), []byte(c.Key))
	if err != nil {
		return nil, fmt.Errorf("use context %s: %w", c.Name, err)
	}
	name := c.ServerName
	if name == "" {
		name = identity.ServerName
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: name, Certificates: []tls.Certificate{pair}}, nil
}

// Dial makes a connection to the context's server; it connects with the first call.
func (c Context) Dial(options ...grpc.DialOption) (*grpc.ClientConn, error) {
	config, err := c.TLS()
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(c.Server, append([]grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config))}, options...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.Server, err)
	}
	return conn, nil
}
