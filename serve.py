"""Try the model in a page, or ask it over HTTP.

    python serve.py                     # then open http://127.0.0.1:8000
    python serve.py --port 0            # any free port, printed
    curl --data-binary @photo.jpg http://127.0.0.1:8000/classify
    curl -F 1=@a.jpg -F 2=@b.jpg http://127.0.0.1:8000/classify

The page takes images that you drop on it, and shows the answer, the box of the face and a heat map.
They stay on this computer: nothing is stored, and the page loads nothing from elsewhere. The newest
model is used, or the released one. Images of several requests are classified together. Ctrl-C or
SIGTERM ends the server after it has answered what was asked, a second one at once. docs/serving.md
describes requests and answers, and how to let others in.
"""

from darknet_face.serving.command import main

if __name__ == "__main__":
    main()
