#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, once: what exists is never overwritten.
#
#   sh deploy/make-secrets.sh [DIRECTORY] [NAME …]
#
# DIRECTORY defaults to deploy/secrets, NAME (the hosts of the development certificate) to
# localhost and 127.0.0.1. For a real host put your own tls_cert.pem and tls_key.pem there first.
set -eu
umask 077

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
target=${1:-$here/secrets}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- localhost 127.0.0.1
mkdir -p "$target"
chmod 700 "$target"
cd "$target"

# The directory is closed to others (700). The files in it are readable, because each is mounted
# alone into a container whose user is not this one.
random() {
    [ -e "$1" ] && return 0
    openssl rand -hex 32 > "$1.new"
    chmod 444 "$1.new"
    mv "$1.new" "$1"
    echo "made $target/$1"
}
random database_password
random edge_secret
random inference_secret

if [ -e tls_cert.pem ] && [ -e tls_key.pem ]; then
    echo "kept $target/tls_cert.pem"
    exit 0
fi
if [ -e tls_cert.pem ] || [ -e tls_key.pem ]; then
    echo "Only one of tls_cert.pem and tls_key.pem is in $target; put both there, or neither." >&2
    exit 1
fi

names='' permitted=''
for name in "$@"; do
    case $name in
        *:*) kind=IP mask=/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ;;
        *[!0-9.]*) kind=DNS mask= ;;
        *) kind=IP mask=/255.255.255.255 ;;
    esac
    names="$names${names:+,}$kind:$name"
    permitted="$permitted${permitted:+,}permitted;$kind:$name$mask"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# An authority for this one certificate: it may sign for these names only (RFC 5280 §4.2.1.10),
# and its key is thrown away at the end.
cat > "$work/openssl.cnf" <<CNF
[req]
distinguished_name = dn
prompt = no
[dn]
CN = stagerelease development CA
[ca]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical,$permitted
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
authorityKeyIdentifier = keyid
subjectAltName = $names
CNF
curve='-algorithm EC -pkeyopt ec_paramgen_curve:P-256'
# shellcheck disable=SC2086
openssl genpkey $curve -out "$work/ca.key" 2>/dev/null
# shellcheck disable=SC2086
openssl genpkey $curve -out "$work/leaf.key" 2>/dev/null
openssl req -x509 -new -key "$work/ca.key" -days 397 -config "$work/openssl.cnf" \
    -extensions ca -out "$work/ca.pem"
openssl req -new -key "$work/leaf.key" -subj "/CN=$1" -config "$work/openssl.cnf" \
    -out "$work/leaf.csr"
openssl x509 -req -in "$work/leaf.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" \
    -CAcreateserial -days 397 -extfile "$work/openssl.cnf" -extensions leaf \
    -out "$work/leaf.pem" 2>/dev/null
install -m 444 "$work/leaf.key" tls_key.pem
install -m 444 "$work/leaf.pem" tls_cert.pem
install -m 444 "$work/ca.pem" ca.pem
echo "made a development certificate for $*; clients trust it with SSL_CERT_FILE=$target/ca.pem"
