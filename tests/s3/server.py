"""A server of S3's protocol that knows one user and checks signatures (moto's), and that user's client.

Prints where it listens and the user's keys as a line of JSON. Each line on standard input then is a
call, ["operation", {parameter: value}], with boto3's names; the answer is a line as well. Ends when
standard input does.
"""

import base64
import json
import logging
import os
import sys
import urllib.request

import boto3
from moto.server import ThreadedMotoServer

POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
endpoint = "http://{}:{}".format(*server.get_host_and_port())


def client(service, key, secret):
    return boto3.client(service, region_name="us-east-1", endpoint_url=endpoint,
                        aws_access_key_id=key, aws_secret_access_key=secret)


iam = client("iam", "any", "any")
iam.create_user(UserName="oribi")
policy = json.dumps(POLICY)
iam.put_user_policy(UserName="oribi", PolicyName="all", PolicyDocument=policy)
made = iam.create_access_key(UserName="oribi")["AccessKey"]
key, secret = made["AccessKeyId"], made["SecretAccessKey"]
# From now on signatures are checked.
checked = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", b"0",
                                 {"Content-Type": "text/plain"})
urllib.request.urlopen(checked).close()
s3 = client("s3", key, secret)
s3.create_bucket(Bucket="lake")
print(json.dumps({"endpoint": endpoint, "key": key, "secret": secret}), flush=True)

# It tells at length of requests that clients have given up.
os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
for line in sys.stdin:
    operation, parameters = json.loads(line)
    if isinstance(parameters.get("Body"), dict):
        parameters["Body"] = base64.b64decode(parameters["Body"]["base64"])
    answer = getattr(s3, operation)(**parameters)
    answer.pop("ResponseMetadata", None)
    if "Body" in answer:
        answer["Body"] = answer["Body"].read().decode("latin-1")
    print(json.dumps(answer, default=str), flush=True)
