package libvirt

import (
	"encoding/xml"
	"errors"
	"fmt"
	"strings"

	"daybreak/hostagent"
)

// Every VM of ours carries an element in its metadata that says whose life it is. What a VM is called, and what its guest
// says, proves nothing.
const (
	metadataURI    = "urn:daybreak:domain:1"
	metadataPrefix = "daybreak"
	// A libvirtd could hand us anything: what is longer than this is none of ours.
	maxMetadata = 4096
)

// lifeElement is the element. libvirt shows it in a VM's XML with a prefix of its own, and hands it out bare when asked for
// the element of our namespace.
type lifeElement struct {
	XMLName    xml.Name `xml:"life"`
	Desktop    string   `xml:"desktop,attr"`
	UID        string   `xml:"uid,attr"`
	Generation int64    `xml:"generation,attr"`
}

// encodeLife writes the metadata of a life.
func encodeLife(life hostagent.Life) (string, error) {
	if err := checkLife(life); err != nil {
		return "", err
	}
	text, err := xml.Marshal(lifeElement{Desktop: life.Desktop, UID: life.UID, Generation: life.Generation})
	if err != nil {
		return "", fmt.Errorf("write metadata: %w", err)
	}
	// libvirt takes elements of foreign namespaces only when they have a prefix.
	prefixed := strings.Replace(string(text), `<life`, `<`+metadataPrefix+`:life xmlns:`+metadataPrefix+`="`+metadataURI+`"`, 1)
	return strings.Replace(prefixed, `</life>`, `</`+metadataPrefix+`:life>`, 1), nil
}

var errNotOurs = errors.New("not metadata of ours")

// parseLife reads what encodeLife wrote.
func parseLife(text string) (hostagent.Life, error) {
	if len(text) > maxMetadata {
		return hostagent.Life{}, fmt.Errorf("read metadata: %d bytes: %w", len(text), errNotOurs)
	}
	var e lifeElement
	if err := xml.Unmarshal([]byte(text), &e); err != nil {
		return hostagent.Life{}, fmt.Errorf("read metadata: %w: %w", err, errNotOurs)
	}
	if e.XMLName.Space != "" && e.XMLName.Space != metadataURI {
		return hostagent.Life{}, fmt.Errorf("read metadata: namespace %.80q: %w", e.XMLName.Space, errNotOurs)
	}
	life := hostagent.Life{Desktop: e.Desktop, UID: e.UID, Generation: e.Generation}
	if err := checkLife(life); err != nil {
		return hostagent.Life{}, fmt.Errorf("read metadata: %w: %w", err, errNotOurs)
	}
	return life, nil
}
