# The sample publisher of docker-compose.yml: runs examples/publish.py once per second.
FROM python:3.13.7-slim-bookworm
RUN pip install --no-cache-dir --disable-pip-version-check pika==1.3.2
COPY publish.py /publish.py
USER 65532:65532
CMD ["sh", "-c", "while python /publish.py sample 'Welcome Message' +15550000001 --keyword 4 --option Offers --response 4; do sleep 1; done"]
