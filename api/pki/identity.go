package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

const (
	trustDomain = "daybreak"
	hostLife    = 30 * 24 * time.Hour
	userLife    = 90 * 24 * time.Hour
)

// ErrIdentity: the certificate is ours and yet does not say clearly for whom it speaks.
var ErrIdentity = errors.New("certificate without a usable identity")

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// roleNames are the organizational units that stand for roles.
func roleNames() map[string]v1.Role {
	return map[string]v1.Role{
		"host": v1.Role_ROLE_HOST, "admin": v1.Role_ROLE_ADMIN, "operator": v1.Role_ROLE_OPERATOR, "viewer": v1.Role_ROLE_VIEWER,
	}
}

// RoleName is the word for a role in certificates, logs and messages.
func RoleName(role v1.Role) string {
	for name, have := range roleNames() {
		if have == role {
			return name
		}
	}
	return ""
}

// Identity is whom a certificate speaks for.
type Identity struct {
	// Name of the host or the person.
	Name string
	Role v1.Role
	// HostUID is the uid of the Host object that a host's certificate belongs to, so that a certificate does not outlive
	// its host when another takes the name. Empty for people.
	HostUID string
	// Expires is when the certificate ends.
	Expires time.Time
}

// IsHost reports whether it is a host's identity.
func (id Identity) IsHost() bool { return id.Role == v1.Role_ROLE_HOST }

// String is the identity as audit and logs show it: "host/kvm1", "user/admin".
func (id Identity) String() string {
	if id.IsHost() {
		return "host/" + id.Name
	}
	return "user/" + id.Name
}

func (id Identity) uri() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: "/" + id.String()}
}

func (id Identity) check() error {
	if !label.MatchString(id.Name) {
		return fmt.Errorf("%w: name %q is not a DNS label", ErrIdentity, id.Name)
	}
	if RoleName(id.Role) == "" {
		return fmt.Errorf("%w: role %v", ErrIdentity, id.Role)
	}
	if id.IsHost() != (id.HostUID != "") {
		return fmt.Errorf("%w: a host's certificate names its Host object, a person's does not", ErrIdentity)
	}
	return nil
}

// IssueClient makes a client certificate (DER) for the key in a PKCS #10 request. Nothing but the key is taken from the
// request. id.Expires is ignored: hosts get 30 days, people 90.
func (ca *CA) IssueClient(id Identity, csrDER []byte, now time.Time) (der []byte, expires time.Time, err error) {
	if err := id.check(); err != nil {
		return nil, time.Time{}, fmt.Errorf("issue certificate: %w", err)
	}
	key, err := requestKey(csrDER)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("issue certificate: %w", err)
	}
	life := userLife
	if id.IsHost() {
		life = hostLife
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: id.Name, OrganizationalUnit: []string{RoleName(id.Role)}, SerialNumber: id.HostUID},
		NotBefore:   now.Add(-skew),
		NotAfter:    now.Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{id.uri()},
	}
	der, err = ca.sign(template, key)
	if err != nil {
		return nil, time.Time{}, err
	}
	return der, template.NotAfter.Truncate(time.Second), nil
}

// IdentityOf reads whom a verified certificate speaks for. It is strict: one URI, one role, and both must agree.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 || len(cert.Subject.OrganizationalUnit) != 1 {
		return Identity{}, fmt.Errorf("%w: want one URI and one role, have %d and %d",
			ErrIdentity, len(cert.URIs), len(cert.Subject.OrganizationalUnit))
	}
	_, name, found := strings.Cut(strings.TrimPrefix(cert.URIs[0].Path, "/"), "/")
	if !found {
		return Identity{}, fmt.Errorf("%w: URI %q", ErrIdentity, cert.URIs[0])
	}
	id := Identity{
		Name: name, Role: roleNames()[cert.Subject.OrganizationalUnit[0]],
		HostUID: cert.Subject.SerialNumber, Expires: cert.NotAfter,
	}
	if err := id.check(); err != nil {
		return Identity{}, err
	}
	if cert.URIs[0].String() != id.uri().String() {
		return Identity{}, fmt.Errorf("%w: URI %q does not fit role %s", ErrIdentity, cert.URIs[0], RoleName(id.Role))
	}
	return id, nil
}
