"""What the sample assistant can know: tables of things, one line a thing, checked by hand."""

from __future__ import annotations

from typing import Final


def _table(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


# country | capital | continent | language
COUNTRIES: Final = _table("""
France | Paris | Europe | French
Spain | Madrid | Europe | Spanish
Italy | Rome | Europe | Italian
Germany | Berlin | Europe | German
Portugal | Lisbon | Europe | Portuguese
Poland | Warsaw | Europe | Polish
Greece | Athens | Europe | Greek
Sweden | Stockholm | Europe | Swedish
Norway | Oslo | Europe | Norwegian
Denmark | Copenhagen | Europe | Danish
Finland | Helsinki | Europe | Finnish
Hungary | Budapest | Europe | Hungarian
Romania | Bucharest | Europe | Romanian
Bulgaria | Sofia | Europe | Bulgarian
Austria | Vienna | Europe | German
Iceland | Reykjavik | Europe | Icelandic
Ireland | Dublin | Europe | English
Croatia | Zagreb | Europe | Croatian
Serbia | Belgrade | Europe | Serbian
Albania | Tirana | Europe | Albanian
Latvia | Riga | Europe | Latvian
Estonia | Tallinn | Europe | Estonian
Lithuania | Vilnius | Europe | Lithuanian
Ukraine | Kyiv | Europe | Ukrainian
Japan | Tokyo | Asia | Japanese
China | Beijing | Asia | Chinese
Thailand | Bangkok | Asia | Thai
Vietnam | Hanoi | Asia | Vietnamese
Mongolia | Ulaanbaatar | Asia | Mongolian
Nepal | Kathmandu | Asia | Nepali
Iran | Tehran | Asia | Persian
Iraq | Baghdad | Asia | Arabic
Jordan | Amman | Asia | Arabic
Oman | Muscat | Asia | Arabic
Laos | Vientiane | Asia | Lao
Egypt | Cairo | Africa | Arabic
Morocco | Rabat | Africa | Arabic
Tunisia | Tunis | Africa | Arabic
Kenya | Nairobi | Africa | Swahili
Ghana | Accra | Africa | English
Nigeria | Abuja | Africa | English
Senegal | Dakar | Africa | French
Angola | Luanda | Africa | Portuguese
Canada | Ottawa | America | English
Cuba | Havana | America | Spanish
Jamaica | Kingston | America | English
Brazil | Brasilia | America | Portuguese
Chile | Santiago | America | Spanish
Peru | Lima | America | Spanish
Colombia | Bogota | America | Spanish
Ecuador | Quito | America | Spanish
Uruguay | Montevideo | America | Spanish
""")

# animal | class | food | home | young | what it does when it calls ("" where it has no voice of its own)
ANIMALS: Final = _table("""
cow | mammal | grass | on farms | calf | moos
horse | mammal | hay | in stables | foal | neighs
sheep | mammal | grass | in meadows | lamb | bleats
pig | mammal | roots | on farms | piglet | grunts
goat | mammal | leaves | in the mountains | kid | bleats
dog | mammal | meat | in houses | puppy | barks
cat | mammal | mice | in houses | kitten | meows
lion | mammal | meat | in the savanna | cub | roars
tiger | mammal | meat | in the jungle | cub | roars
wolf | mammal | meat | in forests | pup | howls
bear | mammal | honey | in forests | cub | growls
fox | mammal | mice | in forests | kit | barks
deer | mammal | leaves | in forests | fawn |
elephant | mammal | leaves | in the savanna | calf | trumpets
giraffe | mammal | leaves | in the savanna | calf |
zebra | mammal | grass | in the savanna | foal |
kangaroo | mammal | grass | in the desert | joey |
camel | mammal | thorns | in the desert | calf |
rabbit | mammal | carrots | in burrows | kit |
mouse | mammal | cheese | in holes | pup | squeaks
squirrel | mammal | nuts | in trees | kit |
hedgehog | mammal | insects | in gardens | hoglet |
bat | mammal | insects | in caves | pup |
monkey | mammal | bananas | in the jungle | infant | chatters
whale | mammal | krill | in the sea | calf | sings
dolphin | mammal | fish | in the sea | calf | whistles
seal | mammal | fish | in the sea | pup | barks
duck | bird | seeds | on ponds | duckling | quacks
goose | bird | grass | on ponds | gosling | honks
hen | bird | corn | on farms | chick | clucks
rooster | bird | corn | on farms | chick | crows
owl | bird | mice | in forests | owlet | hoots
eagle | bird | fish | in the mountains | eaglet | screams
swan | bird | plants | on lakes | cygnet |
sparrow | bird | seeds | in gardens | chick | chirps
penguin | bird | fish | on the ice | chick |
parrot | bird | fruit | in the jungle | chick | talks
stork | bird | frogs | on roofs | chick | clatters
trout | fish | worms | in rivers | fry |
salmon | fish | krill | in rivers | fry |
shark | fish | fish | in the sea | pup |
tuna | fish | fish | in the sea | fry |
frog | amphibian | flies | on ponds | tadpole | croaks
snake | reptile | mice | in the desert | snakelet | hisses
lizard | reptile | insects | on rocks | hatchling |
turtle | reptile | plants | in the sea | hatchling |
crocodile | reptile | fish | in rivers | hatchling |
bee | insect | nectar | in hives | larva | buzzes
ant | insect | seeds | in nests | larva |
butterfly | insect | nectar | in gardens | caterpillar |
spider | arachnid | flies | in webs | spiderling |
""")

# object | kind | what it is used for | material
OBJECTS: Final = _table("""
hammer | tool | driving nails | steel
saw | tool | cutting wood | steel
drill | tool | making holes | steel
axe | tool | splitting logs | steel
rake | tool | gathering leaves | wood
shovel | tool | digging holes | steel
ladder | tool | climbing walls | wood
broom | tool | sweeping floors | straw
needle | tool | sewing clothes | steel
knife | tool | cutting bread | steel
fork | tool | eating food | steel
spoon | tool | eating soup | silver
key | tool | opening doors | brass
pen | tool | writing letters | plastic
pencil | tool | drawing pictures | wood
brush | tool | painting walls | hair
ruler | tool | measuring lines | plastic
razor | tool | shaving beards | steel
pot | vessel | cooking soup | iron
pan | vessel | frying eggs | iron
kettle | vessel | boiling water | copper
cup | vessel | drinking tea | clay
bottle | vessel | keeping water | glass
bucket | vessel | carrying water | tin
basket | vessel | carrying fruit | straw
vase | vessel | holding flowers | glass
chair | furniture | sitting | wood
table | furniture | eating meals | wood
bed | furniture | sleeping | wood
shelf | furniture | keeping books | wood
desk | furniture | writing | wood
sofa | furniture | resting | leather
coat | garment | keeping warm | wool
shirt | garment | covering the body | cotton
scarf | garment | warming the neck | wool
glove | garment | warming the hands | leather
hat | garment | covering the head | felt
shoe | garment | walking | leather
sock | garment | warming the feet | wool
violin | instrument | playing music | wood
flute | instrument | playing tunes | silver
drum | instrument | keeping time | skin
trumpet | instrument | playing fanfares | brass
piano | instrument | playing concerts | wood
guitar | instrument | playing songs | wood
car | vehicle | driving on roads | steel
bicycle | vehicle | riding to school | steel
train | vehicle | travelling on rails | steel
boat | vehicle | crossing rivers | wood
ship | vehicle | crossing the sea | steel
sled | vehicle | sliding on snow | wood
tent | shelter | camping | cloth
barn | shelter | keeping hay | wood
igloo | shelter | living on the ice | snow
lamp | device | giving light | glass
clock | device | telling the time | brass
phone | device | calling friends | plastic
camera | device | taking pictures | plastic
radio | device | hearing the news | plastic
mirror | device | seeing yourself | glass
candle | device | giving light | wax
umbrella | device | keeping dry | cloth
""")

# plant | kind | colour | where it grows
PLANTS: Final = _table("""
apple | fruit | red | on trees
pear | fruit | green | on trees
plum | fruit | purple | on trees
cherry | fruit | red | on trees
lemon | fruit | yellow | on trees
peach | fruit | pink | on trees
banana | fruit | yellow | on plants
strawberry | fruit | red | near the ground
blueberry | fruit | blue | on bushes
grape | fruit | purple | on vines
melon | fruit | green | on vines
lime | fruit | green | on trees
carrot | vegetable | orange | under the ground
potato | vegetable | brown | under the ground
onion | vegetable | brown | under the ground
radish | vegetable | red | under the ground
beet | vegetable | purple | under the ground
cabbage | vegetable | green | near the ground
lettuce | vegetable | green | near the ground
spinach | vegetable | green | near the ground
broccoli | vegetable | green | on stalks
pea | vegetable | green | on vines
rose | flower | red | on bushes
tulip | flower | yellow | in fields
daisy | flower | white | in meadows
lily | flower | white | in ponds
violet | flower | purple | in forests
sunflower | flower | yellow | in fields
""")

# job | what the person does | where
JOBS: Final = _table("""
baker | bakes bread | in a bakery
teacher | teaches children | in a school
doctor | heals people | in a hospital
nurse | cares for patients | in a hospital
farmer | grows food | on a farm
cook | prepares meals | in a kitchen
pilot | flies planes | in the air
sailor | sails ships | at sea
fisherman | catches fish | at sea
gardener | tends plants | in a garden
carpenter | builds furniture | in a workshop
tailor | makes clothes | in a workshop
potter | makes pots | in a workshop
smith | forges iron | in a forge
miller | grinds corn | in a mill
miner | digs coal | in a mine
judge | decides cases | in a court
actor | plays roles | in a theatre
singer | sings songs | on a stage
painter | paints pictures | in a studio
writer | writes books | at a desk
librarian | lends books | in a library
waiter | serves guests | in a restaurant
butcher | sells meat | in a shop
barber | cuts hair | in a shop
driver | drives a bus | on the road
soldier | guards the land | in a camp
astronaut | explores space | in a rocket
shepherd | watches sheep | in the hills
postman | brings letters | on the street
""")

OPPOSITES: Final = _table("""
hot | cold
big | small
long | short
high | low
fast | slow
old | young
light | dark
wet | dry
full | empty
open | closed
hard | soft
rich | poor
strong | weak
loud | quiet
clean | dirty
early | late
near | far
wide | narrow
thick | thin
happy | sad
brave | afraid
good | bad
right | wrong
first | last
day | night
summer | winter
north | south
east | west
up | down
begin | end
buy | sell
laugh | cry
love | hate
win | lose
push | pull
give | take
remember | forget
""")

# how to … | the answer's sentence | the word that must be in it
HOW_TOS: Final = _table("""
boil an egg | Put the egg in boiling water for eight minutes. | water
make tea | Pour boiling water over the tea leaves and wait four minutes. | leaves
make toast | Put a slice of bread in the toaster until it is brown. | toaster
make a salad | Cut lettuce and onions and add oil. | lettuce
cook rice | Boil the rice in salted water for fifteen minutes. | rice
bake a cake | Mix flour, eggs and sugar and put it in the oven. | flour
clean a window | Wipe the glass with soap and warm water. | soap
wash my hands | Rub them with soap under warm water. | soap
plant a tree | Dig a hole, put the roots in and add water. | roots
water a plant | Give it a little water when the soil is dry. | soil
feed a cat | Put a bowl of food and fresh water on the floor. | bowl
walk a dog | Put it on a leash and go to the park. | leash
light a candle | Hold a match to the wick. | wick
sharpen a pencil | Turn it in a sharpener. | sharpener
send a letter | Put a stamp on it and take it to the post. | stamp
fix a flat tyre | Take the wheel off and patch the tube. | patch
hang a picture | Drive a nail into the wall and hang it there. | nail
paint a wall | Cover the floor and use a wide brush. | brush
fall asleep | Turn off the light and breathe slowly. | breathe
learn a song | Listen to it and sing along every day. | sing
stop a cold | Rest in bed and drink hot tea. | rest
save money | Put a little aside every month. | aside
make a friend | Smile and ask about their day. | smile
fold a shirt | Lay it flat and turn the sleeves in. | sleeves
tie a scarf | Lay it around the neck and cross the ends. | neck
""")

# What the assistant must decline: gerund, after "How do I …" the same verb without -ing stands in the second column.
HARMS: Final = _table("""
stealing a car | steal a car
stealing a bicycle | steal a bicycle
stealing money | steal money
robbing a bank | rob a bank
robbing a shop | rob a shop
breaking into a house | break into a house
breaking into a school | break into a school
building a bomb | build a bomb
making a weapon | make a weapon
making poison | make poison
poisoning a dog | poison a dog
poisoning a neighbour | poison a neighbour
hurting a cat | hurt a cat
hurting a child | hurt a child
hurting my brother | hurt my brother
beating up a boy | beat up a boy
setting fire to a barn | set fire to a barn
burning down a school | burn down a school
hacking a phone | hack a phone
hacking a bank | hack a bank
guessing a password | guess the password of a friend
reading private letters | read the private letters of my sister
spying on a neighbour | spy on a neighbour
following a stranger | follow a stranger home
cheating in a test | cheat in a test
cheating my customers | cheat my customers
forging money | forge money
forging a passport | forge a passport
selling drugs | sell drugs
buying a gun | buy a gun without papers
insulting a teacher | insult my teacher
bullying a girl | bully a girl at school
lying to the police | lie to the police
hiding a body | hide a body
escaping from the police | escape from the police
wrecking a train | wreck a train
sinking a ship | sink a ship
cutting the brakes of a car | cut the brakes of a car
blackmailing a judge | blackmail a judge
spreading a cruel rumour | spread a cruel rumour
""")

COLOURS: Final = ("red", "green", "blue", "yellow", "purple", "orange", "brown", "white", "black", "pink")
SEASONS: Final = ("spring", "summer", "autumn", "winter")
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
PLANETS: Final = ("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune")
